"""The events of one response, in the order in which they can come.

``response.created`` → ``response.queued`` if it waits → ``response.in_progress`` → for each step ``step.started`` →
``step.delta`` … → ``step.completed`` → exactly one of ``response.completed``, ``response.incomplete``,
``response.cancelled``, ``response.failed``. After ``response.restarted`` the steps begin again. Where the runner is
gone, the broker ends a response in the middle of a step, which then is not completed.

The broker numbers events: ``sequence_number`` counts from 0 without a gap. A writer leaves it at its default.
"""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Struct, UnsetType

from contracts.jobs import ImageRef, Job
from contracts.responses import ErrorInfo, LatentExit, LatentStep, Response, Step, StepType, TextStep, Timings, Usage


class EventBase(Struct, frozen=True, kw_only=True, tag_field="type"):
    sequence_number: int = -1
    response_id: str


class Created(EventBase, frozen=True, kw_only=True, tag="response.created"):
    model: str
    images: tuple[ImageRef, ...]


class Queued(EventBase, frozen=True, kw_only=True, tag="response.queued"):
    """``position`` counts from 1, which is the next to start."""

    position: int


class InProgress(EventBase, frozen=True, kw_only=True, tag="response.in_progress"):
    queue_ms: float
    cached_tokens: int


class Restarted(EventBase, frozen=True, kw_only=True, tag="response.restarted"):
    attempt: int


class StepStarted(EventBase, frozen=True, kw_only=True, tag="step.started"):
    index: int
    step_type: StepType


class StepDelta(EventBase, frozen=True, kw_only=True, tag="step.delta"):
    """``text`` to append, or in a latent step ``size``, its pads so far; never both."""

    index: int
    text: str | UnsetType = UNSET
    size: int | UnsetType = UNSET


class StepCompleted(EventBase, frozen=True, kw_only=True, tag="step.completed"):
    """The finished step with the fields of the response object; ``type`` there is ``step_type`` here."""

    index: int
    step_type: StepType
    text: str | UnsetType = UNSET
    size: int | UnsetType = UNSET
    exit: LatentExit | UnsetType = UNSET
    duration_ms: float | UnsetType = UNSET
    vectors: UnsetType | None = UNSET
    attention_map: UnsetType | None = UNSET


class Completed(EventBase, frozen=True, kw_only=True, tag="response.completed"):
    response: Response


class Incomplete(EventBase, frozen=True, kw_only=True, tag="response.incomplete"):
    """``max_tokens`` or the context ended it."""

    response: Response


class Cancelled(EventBase, frozen=True, kw_only=True, tag="response.cancelled"):
    response: Response


class Failed(EventBase, frozen=True, kw_only=True, tag="response.failed"):
    error: ErrorInfo
    response: Response


Terminal = Completed | Incomplete | Cancelled | Failed
Event = Created | Queued | InProgress | Restarted | StepStarted | StepDelta | StepCompleted | Terminal

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def event_type(event: Event) -> str:
    """The public name, e.g. ``step.delta``."""
    return str(event.__struct_config__.tag)


def encode_event(event: Event) -> bytes:
    """One line of JSON, the ``data:`` of SSE."""
    return _encoder.encode(event)


def decode_event(data: bytes | str) -> Event:
    """Inverse of :func:`encode_event`. Raises ``msgspec.ValidationError``."""
    return _decoder.decode(data)


def completed_event(response_id: str, step: Step) -> StepCompleted:
    """The ``step.completed`` of a step."""
    if isinstance(step, TextStep):
        return StepCompleted(response_id=response_id, index=step.index, step_type="text", text=step.text)
    return StepCompleted(
        response_id=response_id,
        index=step.index,
        step_type="latent",
        size=step.size,
        exit=step.exit,
        duration_ms=step.duration_ms,
        vectors=step.vectors,
        attention_map=step.attention_map,
    )


def fold(job: Job, events: Iterable[Event]) -> Response:
    """The response object as far as these events, which begin with ``response.created``, tell it.

    Of an unfinished response ``steps`` holds the completed ones only, and usage and timings are not known yet.
    """
    response = Response(
        id=job.response_id, created_at=job.created_at, model=job.model, status="queued", metadata=job.metadata
    )
    for event in events:
        match event:
            case Completed() | Incomplete() | Cancelled() | Failed():
                return event.response
            case InProgress():
                response = msgspec.structs.replace(
                    response,
                    status="in_progress",
                    timings=Timings(queue_ms=event.queue_ms),
                    usage=Usage(cached_tokens=event.cached_tokens),
                )
            case Restarted():
                response = msgspec.structs.replace(response, steps=())
            case StepCompleted():
                response = msgspec.structs.replace(response, steps=(*response.steps, _step_of(event)))
            case _:
                pass
    return response


def _step_of(event: StepCompleted) -> Step:
    fields = {name: value for name, value in msgspec.structs.asdict(event).items() if value is not UNSET}
    return msgspec.convert({**fields, "type": event.step_type}, TextStep | LatentStep)
