"""Events on their way to the broker: nothing lost, nothing out of order, few deltas; also when it is away."""

import asyncio

import pytest

from contracts.broker import LeaseLost
from contracts.errors import BrokerUnavailable
from contracts.events import Event, StepCompleted, StepDelta, StepStarted
from contracts.jobs import Lease
from model_runner import publisher as module
from model_runner.publisher import INTERVAL_S, Publisher
from tests.broker.samples import done, job

LEASE = Lease(job=job("resp_a"), attempt=1, queue_ms=0.0)


class Clock:
    """Seconds, as told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class ListBroker:
    """As much of a broker as a publisher calls. ``errors`` are raised one a call, before or after it is heard."""

    def __init__(self) -> None:
        self.calls: list[list[Event]] = []
        self.log: list[Event] = []
        self.given_back: list[bool] = []
        self.errors: list[Exception] = []
        self.is_heard = True
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def publish(
        self, lease: Lease, events: list[Event], *, num_before: int, token_ids: tuple[int, ...] | None = None
    ) -> None:
        assert lease is LEASE
        if self.is_heard:
            self.calls.append(list(events))
            assert num_before <= len(self.log)
            self.log += events[len(self.log) - num_before :]
        await self.may_answer.wait()
        if self.errors:
            raise self.errors.pop(0)

    async def give_back(self, lease: Lease, *, is_lost: bool) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.given_back.append(is_lost)


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
        clock.now += INTERVAL_S / 4
        await publisher.publish([text(piece)])
    assert broker.calls == [[STARTED, text("a")]]
    clock.now += INTERVAL_S / 2
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
        clock.now += 2 * INTERVAL_S
        await publisher.publish([text(piece)])
    assert broker.calls == [[text("a")], [text("b")], [text("c")]]


async def test_a_lost_lease_is_told(publisher: Publisher, broker: ListBroker) -> None:
    broker.errors = [LeaseLost("resp_a")]
    with pytest.raises(LeaseLost):
        await publisher.publish([DONE])


class TestBrokerAway:
    @pytest.fixture(autouse=True)
    def short_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)

    @pytest.mark.parametrize("is_heard", [True, False])
    async def test_it_is_told_again_until_it_answers(
        self, is_heard: bool, publisher: Publisher, broker: ListBroker, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whether or not what got no answer had arrived, it is there once."""
        await publisher.publish([STARTED])
        broker.is_heard, broker.errors = is_heard, [BrokerUnavailable("No Redis.")] * 3

        async def come_back() -> None:
            while broker.errors:  # noqa: ASYNC110
                await asyncio.sleep(0)
            broker.is_heard = True

        await asyncio.gather(publisher.publish([ENDED]), come_back())
        await publisher.publish([DONE])
        assert broker.log == [STARTED, ENDED, DONE]
        assert len(caplog.records) == 1  # not one of each try

    @pytest.mark.parametrize("is_heard", [True, False])
    async def test_a_call_that_is_cancelled_loses_nothing(
        self, is_heard: bool, publisher: Publisher, broker: ListBroker
    ) -> None:
        await publisher.publish([STARTED])
        broker.may_answer.clear()
        broker.is_heard = is_heard
        cut = asyncio.create_task(publisher.publish([text("a"), ENDED]))
        await asyncio.sleep(0.01)
        cut.cancel()
        await asyncio.wait([cut])
        assert cut.cancelled()
        broker.may_answer.set()
        broker.is_heard = True
        await publisher.publish([DONE])
        assert broker.log == [STARTED, text("a"), ENDED, DONE]

    async def test_deltas_are_not_joined_to_what_may_be_there(
        self, publisher: Publisher, broker: ListBroker, clock: Clock
    ) -> None:
        broker.may_answer.clear()
        cut = asyncio.create_task(publisher.publish([text("a")]))
        await asyncio.sleep(0.01)
        cut.cancel()
        await asyncio.wait([cut])
        broker.may_answer.set()
        await publisher.publish([text("b"), DONE])
        assert broker.log == [text("a"), text("b"), DONE]

    async def test_who_gives_up_asks_no_more(self, publisher: Publisher, broker: ListBroker) -> None:
        broker.errors = [BrokerUnavailable("No Redis.")] * 1000
        telling = asyncio.create_task(publisher.publish([DONE]))
        await asyncio.sleep(0.01)
        assert not telling.done()
        publisher.give_up()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(telling, 1)

    async def test_what_cannot_be_given_back_yet_is_given_back_later(
        self, publisher: Publisher, broker: ListBroker
    ) -> None:
        broker.errors = [BrokerUnavailable("No Redis.")] * 2
        await publisher.give_back(is_lost=True)
        assert broker.given_back == [True]
