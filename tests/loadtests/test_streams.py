"""Times read off a stream, with a clock that the test holds."""

import pytest

from contracts.events import (
    Completed,
    Created,
    Failed,
    InProgress,
    StepDelta,
    StepStarted,
    completed_event,
    encode_event,
)
from contracts.responses import ErrorInfo, LatentStep, Response, TextStep
from loadtests.recorder import LATENT_BLOCK, TEXT_GAP, TIME_TO_FIRST_STEP
from loadtests.streams import ChatStream, ReasonStream

ID = "resp_1"
RESPONSE = Response(id=ID, created_at=0, model="m", status="completed")
DUE_AT = 100.0


def played(make, lines):
    told = []
    stream = make(DUE_AT, lambda measure, seconds: told.append((measure, pytest.approx(seconds))))
    for now, line in lines:
        stream.hear(line, DUE_AT + now)
    return stream, told


def sse(event):
    return b"data: " + encode_event(event)


def test_times_of_a_reason_stream():
    events = [
        (0.1, Created(response_id=ID, model="m", images=())),
        (0.2, InProgress(response_id=ID, queue_ms=1.0, cached_tokens=0)),
        (0.5, StepStarted(response_id=ID, index=0, step_type="text")),
        (0.5, StepDelta(response_id=ID, index=0, text="a")),
        (0.6, StepDelta(response_id=ID, index=0, text="b")),
        (0.65, StepDelta(response_id=ID, index=0, text="c")),
        (0.7, completed_event(ID, TextStep(index=0, text="abc"))),
        (0.7, StepStarted(response_id=ID, index=1, step_type="latent")),
        (0.8, StepDelta(response_id=ID, index=1, size=4)),
        (0.9, completed_event(ID, LatentStep(index=1, size=8, exit="full", duration_ms=180.0))),
        (0.9, StepStarted(response_id=ID, index=2, step_type="text")),
        (1.4, StepDelta(response_id=ID, index=2, text="d")),
        (1.5, Completed(response_id=ID, response=RESPONSE)),
    ]
    stream, told = played(ReasonStream, [(now, sse(event)) for now, event in events])
    # Across the latent block there is no gap in the text, for it was not text that was waited for.
    assert told == [(TIME_TO_FIRST_STEP, 0.5), (TEXT_GAP, 0.1), (TEXT_GAP, 0.05), (LATENT_BLOCK, 0.18)]
    assert (stream.response_id, stream.end, stream.reason) == (ID, "answered", None)


def test_a_failure_is_one_and_says_why():
    error = ErrorInfo(code="engine_dead", message="gone", retryable=True)
    stream, told = played(ReasonStream, [(1, sse(Failed(response_id=ID, error=error, response=RESPONSE)))])
    assert (stream.end, stream.reason, told) == ("failed", "engine_dead", [])


def test_pings_names_and_numbers_are_no_events():
    stream, told = played(ReasonStream, [(0, b": ping"), (0, b"event: step.delta"), (0, b"id: 3"), (0, b"")])
    assert (stream.end, told) == (None, [])
    with pytest.raises(ValueError, match="type"):
        stream.hear(b'data: {"what": 1}', 0)


def test_times_of_a_chat_stream():
    chunk = b'data: {"choices": [{"index": 0, "delta": %s, "finish_reason": %s}]}'
    lines = [
        (0.1, chunk % (b'{"role": "assistant", "content": ""}', b"null")),
        (0.4, chunk % (b'{"reasoning_content": "a"}', b"null")),
        (0.6, chunk % (b'{"reasoning_content": "b"}', b"null")),
        (0.6, chunk % (b'{"content": "b"}', b"null")),  # said again as the answer, which nobody waited for
        (0.7, chunk % (b"{}", b'"stop"')),
        (0.7, b'data: {"choices": [], "usage": {}}'),
        (0.8, b"data: [DONE]"),
    ]
    stream, told = played(ChatStream, lines)
    assert (told, stream.end) == ([(TIME_TO_FIRST_STEP, 0.4), (TEXT_GAP, 0.2)], "answered")


def test_gaps_of_a_chat_without_reasoning_are_those_of_its_content():
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}'
    _, told = played(ChatStream, [(0.4, chunk), (0.6, chunk)])
    assert told == [(TIME_TO_FIRST_STEP, 0.4), (TEXT_GAP, 0.2)]


def test_a_chat_that_ends_without_its_reason_or_with_an_error_has_failed():
    assert played(ChatStream, [(1, b"data: [DONE]")])[0].end == "failed"
    stream, _ = played(ChatStream, [(1, b'data: {"error": {"code": "engine_dead"}}')])
    assert (stream.end, stream.reason) == ("failed", "engine_dead")
