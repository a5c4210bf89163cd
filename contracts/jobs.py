"""A job: everything a runner needs to answer one request."""

from typing import Literal

from msgspec import Struct

LatentMode = Literal["on", "off"]
Role = Literal["system", "user", "assistant"]


class ImageRef(Struct, frozen=True, kw_only=True):
    """A stored image: ``img_<sha256 of its bytes>``, with its size in pixels."""

    id: str
    width: int
    height: int


class StoredImage(Struct, frozen=True, kw_only=True):
    """An encoded picture file as it was sent, never a decoded one."""

    ref: ImageRef
    media_type: str
    data: bytes


class Sampling(Struct, frozen=True, kw_only=True):
    """What the caller asked for. ``None`` means: as the checkpoint's ``generation_config.json`` says."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Turn(Struct, frozen=True, kw_only=True):
    """One message of a conversation before the question.

    num_images: of a user's message, which they come before in the prompt.
    token_ids: of an answer of ours what was generated, latent blocks and the end token included; then ``text`` is not
        tokenised again. None for what a client sends as text.
    """

    role: Role
    text: str = ""
    num_images: int = 0
    token_ids: tuple[int, ...] | None = None


class Job(Struct, frozen=True, kw_only=True):
    """One request, validated. Images come before the question in the prompt, in this order.

    history: the conversation so far. ``images`` are then those of all turns in order, and those of the question last.
    owner: the id of the API key that asked, empty where keys are off. Only the same owner may see the response.
    background: it is not cancelled when nobody reads it.
    timeout_s: the time from submission, by the broker's clock, after which it ends with ``response.failed``.
    trace: what the next process needs to go on with a trace (``traceparent``); the id of the HTTP request.
    """

    response_id: str
    created_at: int  # seconds since the epoch
    model: str
    question: str
    images: tuple[ImageRef, ...] = ()
    history: tuple[Turn, ...] = ()
    sampling: Sampling = Sampling()
    latent_mode: LatentMode = "on"
    metadata: dict[str, str] = {}
    owner: str = ""
    background: bool = False
    timeout_s: float | None = None
    request_id: str = ""
    trace: dict[str, str] = {}


class Idempotency(Struct, frozen=True, kw_only=True):
    """An ``Idempotency-Key`` of the job's owner, and the SHA-256 of the body that it came with, in hex."""

    key: str
    body_sha256: str


class RateLimit(Struct, frozen=True, kw_only=True):
    """A token bucket: ``burst`` at once, refilled with ``per_minute``."""

    per_minute: float
    burst: int


class Lease(Struct, frozen=True, kw_only=True):
    """A runner's right to work on a job. ``attempt`` counts from 1; ``queue_ms`` was measured by the broker.

    time_left_s: what is left of the job's ``timeout_s``; the runner ends it then with ``DeadlineExceeded``.
    """

    job: Job
    attempt: int
    queue_ms: float
    time_left_s: float | None = None
