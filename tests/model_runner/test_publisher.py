"""Events on their way to the broker: nothing lost, nothing out of order, few deltas."""

import pytest

from contracts.broker import LeaseLost
from contracts.events import Event, StepCompleted, StepDelta, StepStarted
from contracts.jobs import Lease
from model_runner import publisher as module
from model_runner.publisher import MIN_INTERVAL_S, Publisher
from tests.broker.samples import done, job

LEASE = Lease(job=job("resp_a"), attempt=1, queue_ms=0.0)


class Clock:
    """Seconds, as told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class ListBroker:
    """As much of a broker as a publisher calls."""

    def __init__(self) -> None:
        self.calls: list[list[Event]] = []

    async def publish(self, lease: Lease, events: list[Event]) -> None:
        assert lease is LEASE
        self.calls.append(list(events))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def broker() -> ListBroker:
    return ListBroker()


@pytest.fixture
def publisher(broker: ListBroker, clock: Clock) -> Publisher:
    return Publisher(broker, LEASE)


def text(content: str, index: int = 0) -> StepDelta:
    return StepDelta(response_id="resp_a", index=index, text=content)


def pads(size: int, index: int = 1) -> StepDelta:
    return StepDelta(response_id="resp_a", index=index, size=size)


STARTED = StepStarted(response_id="resp_a", index=0, step_type="text")
ENDED = StepCompleted(response_id="resp_a", index=0, step_type="text", text="abc")
DONE = done(LEASE.job)


async def test_what_is_no_delta_goes_at_once(publisher: Publisher, broker: ListBroker) -> None:
    await publisher.publish([STARTED])
    await publisher.publish([ENDED])
    assert broker.calls == [[STARTED], [ENDED]]


async def test_deltas_within_the_interval_are_joined(publisher: Publisher, broker: ListBroker, clock: Clock) -> None:
    await publisher.publish([STARTED, text("a")])
    for piece in "bcd":
        clock.now += MIN_INTERVAL_S / 4
        await publisher.publish([text(piece)])
    assert broker.calls == [[STARTED, text("a")]]
    clock.now += MIN_INTERVAL_S / 2
    await publisher.publish([text("e")])
    assert broker.calls == [[STARTED, text("a")], [text("bcde")]]


async def test_of_pads_the_last_count_stands(publisher: Publisher, broker: ListBroker) -> None:
    await publisher.publish([STARTED])
    for size in (1, 2, 3):
        await publisher.publish([pads(size)])
    await publisher.publish([DONE])
    assert broker.calls == [[STARTED], [pads(3), DONE]]


async def test_what_waits_goes_before_what_comes_after(publisher: Publisher, broker: ListBroker) -> None:
    await publisher.publish([STARTED])
    await publisher.publish([text("a")])
    await publisher.publish([text("b"), ENDED])
    assert broker.calls == [[STARTED], [text("ab"), ENDED]]


async def test_deltas_of_different_steps_stay_apart(publisher: Publisher, broker: ListBroker) -> None:
    await publisher.publish([STARTED])
    await publisher.publish([text("a"), pads(1)])
    await publisher.publish([pads(2), text("b", index=2), DONE])
    assert broker.calls == [[STARTED], [text("a"), pads(2), text("b", index=2), DONE]]


async def test_nothing_is_published_of_nothing(publisher: Publisher, broker: ListBroker) -> None:
    await publisher.publish([])
    assert broker.calls == []


async def test_a_slow_engine_is_not_held_back(publisher: Publisher, broker: ListBroker, clock: Clock) -> None:
    for piece in "abc":
        clock.now += 2 * MIN_INTERVAL_S
        await publisher.publish([text(piece)])
    assert broker.calls == [[text("a")], [text("b")], [text("c")]]


async def test_a_lost_lease_is_told(publisher: Publisher, broker: ListBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(lease: Lease, events: list[Event]) -> None:
        raise LeaseLost("resp_a")

    monkeypatch.setattr(broker, "publish", lose)
    with pytest.raises(LeaseLost):
        await publisher.publish([DONE])
