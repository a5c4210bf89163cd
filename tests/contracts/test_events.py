"""Events and the response object as they cross the wire: the names and fields that the API documents, and no other."""

import json
from typing import Any

import msgspec
import pytest

from contracts.events import (
    Cancelled,
    Completed,
    Created,
    Event,
    Failed,
    Incomplete,
    InProgress,
    Queued,
    Restarted,
    StepCompleted,
    StepDelta,
    StepStarted,
    completed_event,
    decode_event,
    encode_event,
    event_type,
    fold,
)
from contracts.jobs import ImageRef, Job
from contracts.responses import ErrorInfo, LatentStep, Response, TextStep, Timings, Usage

AT: dict[str, Any] = {"response_id": "resp_a", "sequence_number": 4}
HEAD = {"response_id": "resp_a", "sequence_number": 4}
STEPS = (
    TextStep(index=0, text="é\n"),
    LatentStep(index=1, size=8, exit="full", duration_ms=3.1),
    TextStep(index=2, text=" \\boxed{RRDD}"),
)
RESPONSE = Response(
    id="resp_a",
    created_at=1_760_000_000,
    model="maze-tiny",
    status="completed",
    finish_reason="stop",
    steps=STEPS,
    answer="RRDD",
    usage=Usage(
        input_tokens=41,
        image_tokens=16,
        cached_tokens=32,
        output_text_tokens=23,
        latent_steps=8,
        latent_blocks=1,
        answer_tokens=4,
    ),
    timings=Timings(queue_ms=0.4, time_to_first_step_ms=12.0, total_ms=80.2),
    metadata={"trace": "abc"},
)
# As the API documents the object; ``error`` and ``metadata`` beside it.
RESPONSE_JSON: dict[str, Any] = {
    "id": "resp_a",
    "object": "reason.response",
    "created_at": 1_760_000_000,
    "model": "maze-tiny",
    "status": "completed",
    "finish_reason": "stop",
    "steps": [
        {"index": 0, "type": "text", "text": "é\n"},
        {
            "index": 1,
            "type": "latent",
            "size": 8,
            "exit": "full",
            "duration_ms": 3.1,
            "vectors": None,
            "attention_map": None,
        },
        {"index": 2, "type": "text", "text": " \\boxed{RRDD}"},
    ],
    "answer": "RRDD",
    "usage": {
        "input_tokens": 41,
        "image_tokens": 16,
        "cached_tokens": 32,
        "output_text_tokens": 23,
        "latent_steps": 8,
        "latent_blocks": 1,
        "answer_tokens": 4,
    },
    "timings": {"queue_ms": 0.4, "time_to_first_step_ms": 12.0, "total_ms": 80.2},
    "error": None,
    "metadata": {"trace": "abc"},
}
ERROR = ErrorInfo(code="engine_dead", message="gone", retryable=True)
ERROR_JSON = {"code": "engine_dead", "message": "gone", "retryable": True}
FAILED = msgspec.structs.replace(RESPONSE, status="failed", finish_reason="error", error=ERROR)

WIRE: list[tuple[Event, dict[str, Any]]] = [
    (
        Created(**AT, model="m", images=(ImageRef(id="img_0f", width=84, height=56),)),
        {"type": "response.created", "model": "m", "images": [{"id": "img_0f", "width": 84, "height": 56}]},
    ),
    (Created(**AT, model="m", images=()), {"type": "response.created", "model": "m", "images": []}),
    (Queued(**AT, position=3), {"type": "response.queued", "position": 3}),
    (
        InProgress(**AT, queue_ms=1.5, cached_tokens=32),
        {"type": "response.in_progress", "queue_ms": 1.5, "cached_tokens": 32},
    ),
    (Restarted(**AT, attempt=2), {"type": "response.restarted", "attempt": 2}),
    (
        StepStarted(**AT, index=0, step_type="text"),
        {"type": "step.started", "index": 0, "step_type": "text"},
    ),
    (
        StepStarted(**AT, index=1, step_type="latent"),
        {"type": "step.started", "index": 1, "step_type": "latent"},
    ),
    (StepDelta(**AT, index=0, text="a\nb"), {"type": "step.delta", "index": 0, "text": "a\nb"}),
    (StepDelta(**AT, index=1, size=3), {"type": "step.delta", "index": 1, "size": 3}),
    (
        StepCompleted(**AT, index=0, step_type="text", text="ab"),
        {"type": "step.completed", "index": 0, "step_type": "text", "text": "ab"},
    ),
    (
        msgspec.structs.replace(completed_event("resp_a", STEPS[1]), sequence_number=4),
        {
            "type": "step.completed",
            "index": 1,
            "step_type": "latent",
            "size": 8,
            "exit": "full",
            "duration_ms": 3.1,
            "vectors": None,
            "attention_map": None,
        },
    ),
    (Completed(**AT, response=RESPONSE), {"type": "response.completed", "response": RESPONSE_JSON}),
    (
        Incomplete(**AT, response=msgspec.structs.replace(RESPONSE, status="incomplete", finish_reason="length")),
        {
            "type": "response.incomplete",
            "response": {**RESPONSE_JSON, "status": "incomplete", "finish_reason": "length"},
        },
    ),
    (
        Cancelled(**AT, response=msgspec.structs.replace(RESPONSE, status="cancelled", finish_reason="cancelled")),
        {
            "type": "response.cancelled",
            "response": {**RESPONSE_JSON, "status": "cancelled", "finish_reason": "cancelled"},
        },
    ),
    (
        Failed(**AT, error=ERROR, response=FAILED),
        {
            "type": "response.failed",
            "error": ERROR_JSON,
            "response": {**RESPONSE_JSON, "status": "failed", "finish_reason": "error", "error": ERROR_JSON},
        },
    ),
]
EACH = pytest.mark.parametrize(("event", "wire"), WIRE, ids=[wire["type"] for _, wire in WIRE])


@EACH
def test_the_wire_form(event: Event, wire: dict[str, Any]) -> None:
    assert json.loads(encode_event(event)) == {**HEAD, **wire}


@EACH
def test_there_and_back(event: Event, wire: dict[str, Any]) -> None:
    assert decode_event(encode_event(event)) == event
    assert decode_event(json.dumps({**HEAD, **wire})) == event


def test_line_breaks_in_a_text_stay_inside_the_line() -> None:
    """A field of SSE ends at either."""
    encoded = encode_event(StepDelta(**AT, index=0, text="a\r\nb"))
    assert b"\n" not in encoded
    assert b"\r" not in encoded


@EACH
def test_the_public_name(event: Event, wire: dict[str, Any]) -> None:
    assert event_type(event) == wire["type"]


def test_every_event_is_looked_at() -> None:
    seen = {type(event) for event, _ in WIRE}
    assert seen == set(Event.__args__)


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"type": "response.unheard_of", "response_id": "a"}',
        '{"type": "response.queued", "response_id": "a"}',
        '{"type": "response.queued", "response_id": "a", "position": "1"}',
    ],
)
def test_something_else_is_refused(data: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_event(data)


JOB = Job(response_id="resp_a", created_at=1_760_000_000, model="maze-tiny", question="?", metadata={"trace": "abc"})
CREATED = Created(response_id="resp_a", model="maze-tiny", images=())


def steps_events(*steps: TextStep | LatentStep) -> list[Event]:
    events: list[Event] = []
    for step in steps:
        kind = "text" if isinstance(step, TextStep) else "latent"
        events.append(StepStarted(response_id="resp_a", index=step.index, step_type=kind))
        events.append(completed_event("resp_a", step))
    return events


class TestFold:
    """The response object of ``GET``, as far as the events tell it."""

    def test_of_a_waiting_one(self) -> None:
        response = fold(JOB, [CREATED, Queued(response_id="resp_a", position=1)])
        assert response == Response(
            id="resp_a", created_at=1_760_000_000, model="maze-tiny", status="queued", metadata={"trace": "abc"}
        )

    def test_of_a_running_one(self) -> None:
        """A step that is still open is not in it."""
        events = [
            CREATED,
            InProgress(response_id="resp_a", queue_ms=1.5, cached_tokens=32),
            *steps_events(*STEPS[:2]),
            StepStarted(response_id="resp_a", index=2, step_type="text"),
            StepDelta(response_id="resp_a", index=2, text="So"),
        ]
        response = fold(JOB, events)
        assert (response.status, response.finish_reason, response.answer) == ("in_progress", None, None)
        assert response.steps == STEPS[:2]
        assert response.timings == Timings(queue_ms=1.5)
        assert response.usage == Usage(cached_tokens=32)

    def test_of_one_that_began_again(self) -> None:
        events = [
            CREATED,
            InProgress(response_id="resp_a", queue_ms=1.5, cached_tokens=0),
            *steps_events(*STEPS),
            Restarted(response_id="resp_a", attempt=2),
            InProgress(response_id="resp_a", queue_ms=90.0, cached_tokens=0),
            *steps_events(STEPS[0]),
        ]
        response = fold(JOB, events)
        assert response.steps == STEPS[:1]
        assert response.timings.queue_ms == 90.0

    @pytest.mark.parametrize("last", [event for event, wire in WIRE if "response" in wire], ids=event_type)
    def test_of_an_ended_one(self, last: Any) -> None:
        """The terminal event has it all."""
        assert fold(JOB, [CREATED, *steps_events(STEPS[0]), last]) == last.response
