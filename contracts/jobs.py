"""A job: everything a runner needs to answer one request."""

from typing import Literal

from msgspec import Struct

LatentMode = Literal["on", "off"]


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


class Job(Struct, frozen=True, kw_only=True):
    """One request, validated. Images come before the question in the prompt, in this order."""

    response_id: str
    created_at: int  # seconds since the epoch
    model: str
    question: str
    images: tuple[ImageRef, ...] = ()
    sampling: Sampling = Sampling()
    latent_mode: LatentMode = "on"
    metadata: dict[str, str] = {}


class Lease(Struct, frozen=True, kw_only=True):
    """A runner's right to work on a job. ``attempt`` counts from 1; ``queue_ms`` was measured by the broker."""

    job: Job
    attempt: int
    queue_ms: float
