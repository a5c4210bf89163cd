"""The response object of the API and its parts."""

from typing import Literal

from msgspec import Struct

from contracts.errors import IlvrError

Status = Literal["queued", "in_progress", "completed", "incomplete", "cancelled", "failed"]
FinishReason = Literal["stop", "length", "cancelled", "error"]
LatentExit = Literal["full", "early", "restart", "cut"]
StepType = Literal["text", "latent"]


class TextStep(Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    index: int
    text: str


class LatentStep(Struct, frozen=True, kw_only=True, tag_field="type", tag="latent"):
    """One latent block. ``size`` counts its pads; ``exit`` says how it ended.

    ``full``: K pads were reached; ``early``: the model chose END; ``restart``: the model chose START again, which
    ends this step and begins the next; ``cut``: the request ended inside the block.
    """

    index: int
    size: int
    exit: LatentExit
    duration_ms: float
    vectors: None = None
    attention_map: None = None


Step = TextStep | LatentStep


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts. ``input_tokens`` includes ``image_tokens``; ``latent_steps`` counts pads of latent blocks.

    answer_tokens: of the output text tokens, those of the answer; of a text that names none, of its last step if that
    is text.
    """

    input_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    output_text_tokens: int = 0
    latent_steps: int = 0
    latent_blocks: int = 0
    answer_tokens: int = 0


class Timings(Struct, frozen=True, kw_only=True):
    """Milliseconds. Queue: from submission until the engine scheduled it; the other two count from submission."""

    queue_ms: float | None = None
    time_to_first_step_ms: float | None = None
    total_ms: float | None = None


class ErrorInfo(Struct, frozen=True, kw_only=True):
    code: str
    message: str
    retryable: bool


def error_info(error: IlvrError) -> ErrorInfo:
    """The part of a failed response that says why."""
    return ErrorInfo(code=error.code, message=str(error), retryable=error.is_retryable)


class Response(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["reason.response"] = "reason.response"
    created_at: int
    model: str
    status: Status
    finish_reason: FinishReason | None = None
    steps: tuple[Step, ...] = ()
    answer: str | None = None
    usage: Usage = Usage()
    timings: Timings = Timings()
    error: ErrorInfo | None = None
    metadata: dict[str, str] = {}
