"""Token deltas into events and the response object, with a clock that is told the time."""

from collections.abc import Sequence

import pytest

from contracts.errors import EngineDead, GenerationFailed, PromptTooLong
from contracts.events import (
    Cancelled,
    Completed,
    Event,
    Failed,
    Incomplete,
    InProgress,
    StepCompleted,
    StepDelta,
    StepStarted,
    event_type,
    fold,
)
from contracts.jobs import Job, Lease, Sampling
from contracts.responses import ErrorInfo, LatentStep, Response, TextStep, Timings, Usage
from model_runner.engine.base import PromptInfo, TokenDelta
from model_runner.vocabulary import Vocabulary
from model_runner.writer import ResponseWriter
from tests.model_runner.simulator import END, EOS, PAD, START, make_spec

BYTES = Vocabulary({100 + byte: bytes([byte]) for byte in range(256)})
RESPONSE = "resp_a"
PROMPT = PromptInfo(num_tokens=41, num_image_tokens=16, num_cached_tokens=32, queue_ms=3.0)
BLOCK = [START, PAD, PAD, PAD, END]


class Clock:
    """Seconds, as told."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_job(stop: tuple[str, ...] = ()) -> Job:
    return Job(
        response_id=RESPONSE,
        created_at=1_760_000_000,
        model="m",
        question="?",
        sampling=Sampling(stop=stop),
        metadata={"trace": "abc"},
    )


def make_writer(clock: Clock, stop: tuple[str, ...] = ()) -> ResponseWriter:
    return ResponseWriter(Lease(job=make_job(stop), attempt=1, queue_ms=20.0), make_spec(size=3), BYTES, clock)


def test_gaps_between_text_tokens(clock: Clock) -> None:
    """Inside a text; not from a block to the text after it. Two tokens that come together share the time."""
    gaps: list[float] = []
    lease = Lease(job=make_job(), attempt=1, queue_ms=20.0)
    writer = ResponseWriter(lease, make_spec(size=3), BYTES, clock, gaps.append)
    for wait_s, token_ids in (
        (1.0, ids("a")),
        (0.25, ids("b")),
        (0.5, ids("cd")),
        (3.0, [START]),
        (3.0, [PAD]),
        (3.0, [END]),
        (2.0, ids("e")),
        (0.125, ids("f")),
    ):
        clock.now += wait_s
        writer.write(delta(token_ids))
    assert gaps == [0.25, 0.25, 0.25, 2.0, 0.125]


def ids(text: str) -> list[int]:
    return [100 + byte for byte in text.encode()]


def delta(token_ids: Sequence[int], prompt: PromptInfo | None = None) -> TokenDelta:
    return TokenDelta(ids=tuple(token_ids), prompt=prompt)


def latent(index: int, size: int, exit: str, duration_ms: float) -> LatentStep:
    return LatentStep(index=index, size=size, exit=exit, duration_ms=duration_ms)


def test_a_whole_response(clock: Clock) -> None:
    """Every event, in order, and every number in it."""
    writer = make_writer(clock)
    clock.now += 0.004
    events: list[Event] = writer.write(delta(ids("a"), PROMPT))
    clock.now += 0.010
    events += writer.write(delta([START]))
    clock.now += 0.002
    events += writer.write(delta([PAD]))
    clock.now += 0.001
    events += writer.write(delta([PAD, PAD]))
    clock.now += 0.0005
    events += writer.write(delta([END]))
    events += writer.write(delta(ids("\\boxed{R}")))
    clock.now += 0.005
    events += writer.write(delta([EOS]))
    steps = (
        TextStep(index=0, text="a"),
        latent(1, 3, "full", 3.5),
        TextStep(index=2, text="\\boxed{R}"),
    )
    assert writer.steps == steps[:2]  # the last one is still open
    events += writer.end("stop")
    at = {"response_id": RESPONSE}
    assert events == [
        InProgress(**at, queue_ms=23.0, cached_tokens=32),
        StepStarted(**at, index=0, step_type="text"),
        StepDelta(**at, index=0, text="a"),
        StepCompleted(**at, index=0, step_type="text", text="a"),
        StepStarted(**at, index=1, step_type="latent"),
        StepDelta(**at, index=1, size=1),
        StepDelta(**at, index=1, size=3),
        StepCompleted(
            **at,
            index=1,
            step_type="latent",
            size=3,
            exit="full",
            duration_ms=3.5,
            vectors=None,
            attention_map=None,
        ),
        StepStarted(**at, index=2, step_type="text"),
        StepDelta(**at, index=2, text="\\boxed{R}"),
        StepCompleted(**at, index=2, step_type="text", text="\\boxed{R}"),
        Completed(
            **at,
            response=Response(
                id=RESPONSE,
                created_at=1_760_000_000,
                model="m",
                status="completed",
                finish_reason="stop",
                steps=steps,
                answer="R",
                usage=Usage(
                    input_tokens=41,
                    image_tokens=16,
                    cached_tokens=32,
                    output_text_tokens=1 + 1 + 1 + 9 + 1,  # text, START, END, text, the end of the text
                    latent_steps=3,
                    latent_blocks=1,
                    answer_tokens=1,
                ),
                timings=Timings(queue_ms=23.0, time_to_first_step_ms=24.0, total_ms=42.5),
                metadata={"trace": "abc"},
            ),
        ),
    ]
    assert writer.steps == steps
    assert fold(make_job(), events) == events[-1].response


def test_the_first_step_may_be_latent(clock: Clock) -> None:
    writer = make_writer(clock)
    clock.now += 1
    writer.write(delta([START], PROMPT))
    clock.now += 1
    (*_, done) = writer.end("length")
    assert isinstance(done, Incomplete)
    assert done.response.timings == Timings(queue_ms=23.0, time_to_first_step_ms=1020.0, total_ms=2020.0)
    assert done.response.steps == (latent(0, 0, "cut", 1000.0),)


def test_no_step_at_all(clock: Clock) -> None:
    writer = make_writer(clock)
    events = writer.write(delta([EOS], PROMPT)) + writer.end("stop")
    assert [event_type(event) for event in events] == ["response.in_progress", "response.completed"]
    assert events[-1].response.timings.time_to_first_step_ms is None
    assert events[-1].response.answer is None
    assert events[-1].response.usage.output_text_tokens == 1


def test_the_answer_does_not_see_across_a_gap_that_was_not_there(clock: Clock) -> None:
    """It is looked for in the texts, one after the other."""
    writer = make_writer(clock)
    writer.write(delta([*ids("The answer is A.\n"), *BLOCK, *ids("The answer is B.")], PROMPT))
    assert writer.end("stop")[-1].response.answer == "B"


@pytest.mark.parametrize(
    ("reason", "kind", "status"),
    [
        ("stop", Completed, "completed"),
        ("length", Incomplete, "incomplete"),
        ("cancelled", Cancelled, "cancelled"),
    ],
)
def test_ends(reason: str, kind: type, status: str, clock: Clock) -> None:
    """An open block is cut, and its step comes before the one terminal event."""
    writer = make_writer(clock)
    writer.write(delta([START, PAD], PROMPT))
    clock.now += 0.25
    events = writer.end(reason)
    assert [type(event) for event in events] == [StepCompleted, kind]
    response = events[-1].response
    assert (response.status, response.finish_reason, response.error) == (status, reason, None)
    assert response.steps == (latent(0, 1, "cut", 250.0),)


@pytest.mark.parametrize(
    ("error", "info"),
    [
        (GenerationFailed("lost"), ErrorInfo(code="generation_failed", message="lost", retryable=True)),
        (EngineDead("gone"), ErrorInfo(code="engine_dead", message="gone", retryable=True)),
        (PromptTooLong("long"), ErrorInfo(code="prompt_too_long", message="long", retryable=False)),
    ],
)
def test_a_failure_keeps_what_was_reached(error: Exception, info: ErrorInfo, clock: Clock) -> None:
    writer = make_writer(clock)
    writer.write(delta([*BLOCK, *ids("answer: A")], PROMPT))
    completed, failed = writer.fail(error)
    assert completed == StepCompleted(response_id=RESPONSE, index=1, step_type="text", text="answer: A")
    assert isinstance(failed, Failed)
    assert failed.error == failed.response.error == info
    assert (failed.response.status, failed.response.finish_reason) == ("failed", "error")
    assert failed.response.steps == (latent(0, 3, "full", 0.0), TextStep(index=1, text="answer: A"))
    assert failed.response.usage.latent_steps == 3
    assert failed.response.usage.input_tokens == 41


def test_a_failure_before_anything_was_reached(clock: Clock) -> None:
    clock.now = 10.0
    writer = make_writer(clock)
    clock.now += 0.5
    (failed,) = writer.fail(PromptTooLong("long"))
    assert failed.response.steps == ()
    assert failed.response.usage == Usage()
    assert failed.response.timings == Timings(queue_ms=None, time_to_first_step_ms=None, total_ms=520.0)


def test_half_a_character_waits_and_is_replaced_at_the_end(clock: Clock) -> None:
    writer = make_writer(clock)
    assert [event_type(event) for event in writer.write(delta(ids("€")[:2], PROMPT))] == ["response.in_progress"]
    events = writer.end("length")
    assert [event_type(event) for event in events] == [
        "step.started",
        "step.delta",
        "step.completed",
        "response.incomplete",
    ]
    assert events[-1].response.steps == (TextStep(index=0, text="\ufffd"),)


def test_a_stop_string_ends_the_text_before_it(clock: Clock) -> None:
    writer = make_writer(clock, stop=("STOP",))
    writer.write(delta(ids("abcST"), PROMPT))
    assert not writer.is_stopped
    assert writer.write(delta([*ids("OPmore"), START, PAD])) == []
    assert writer.is_stopped
    events = writer.end("stop")
    assert [event_type(event) for event in events] == ["step.completed", "response.completed"]
    assert events[-1].response.steps == (TextStep(index=0, text="abc"),)
    assert events[-1].response.usage.latent_steps == 0


def test_what_looked_like_a_stop_string_is_shown_in_the_end(clock: Clock) -> None:
    writer = make_writer(clock, stop=("STOP",))
    events = writer.write(delta(ids("abcST"), PROMPT)) + writer.end("length")
    assert "".join(event.text for event in events if isinstance(event, StepDelta)) == "abcST"
    assert events[-1].response.steps == (TextStep(index=0, text="abcST"),)
