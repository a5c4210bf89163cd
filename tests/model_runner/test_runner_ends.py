"""How work ends that does not come to its own end: late, engine or broker lost, drained, shut down."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from contracts.broker import RunnerStatus
from contracts.errors import BrokerUnavailable
from contracts.events import Event
from contracts.jobs import Lease
from contracts.responses import LatentStep, TextStep
from tests.broker.samples import done, status
from tests.model_runner.world import ANSWER, HELD, SOON_S, Start


async def spare(broker: EmbeddedBroker) -> None:
    """Another runner that is ready."""
    await broker.heartbeat(status("r2"))


class TestDeadlines:
    async def test_a_late_response_fails_and_its_slot_is_free(self, start: Start) -> None:
        async with start(HELD, max_num_seqs=1) as world:
            await world.submit("resp_a", timeout_s=0.2)
            await world.engine.until_open(1)
            response = await world.ended("resp_a")
            assert response.error is not None
            assert (response.error.code, response.error.retryable) == ("deadline_exceeded", False)
            assert response.steps[0] == TextStep(index=0, text="Go. ")
            assert isinstance(response.steps[1], LatentStep)
            await world.engine.until_open(0)
            await world.submit("resp_b", timeout_s=60.0)
            world.engine.may_go_on.set()
            assert (await world.ended("resp_b")).status == "completed"
            assert world.count("ilvr_runner_responses_total", outcome="deadline_exceeded") == 1

    async def test_time_in_the_queue_counts(self, start: Start) -> None:
        async with start(HELD, max_num_seqs=1) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            await world.submit("resp_late", timeout_s=0.1)
            assert (await world.ended("resp_late")).status == "failed"
            assert [request.request_id for request in world.engine.requests] == ["resp_a-1"]


class TestEngineLost:
    async def test_another_runner_takes_over(self, start: Start) -> None:
        async with start(HELD) as world:
            await spare(world.broker)
            await world.submit("resp_a")
            await world.engine.until_open(1)
            taking = asyncio.create_task(world.broker.take("r2", room=1))
            world.engine.die()
            (again,) = await asyncio.wait_for(taking, SOON_S)
            assert (again.job.response_id, again.attempt) == ("resp_a", 2)

    async def test_an_engine_that_dies_of_a_job_uses_up_its_attempts(self, start: Start) -> None:
        broker = EmbeddedBroker(BrokerLimits(max_attempts=1))
        async with start(HELD, broker=broker) as world:
            await spare(world.broker)
            await world.submit("resp_a")
            await world.engine.until_open(1)
            world.engine.die()
            response = await world.ended("resp_a")
            assert response.error is not None
            assert response.error.code == "engine_dead"


class TestBrokerAway:
    async def test_nothing_is_lost_and_the_slot_is_free_again(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("model_runner.publisher.FIRST_PAUSE_S", 0.01)
        broker = Away()
        async with start(HELD, max_num_seqs=1, broker=broker) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            broker.is_away = True
            world.engine.may_go_on.set()
            await asyncio.sleep(0.1)
            assert not world.task.done()
            broker.is_away = False
            assert (await world.ended("resp_a")).status == "completed"
            await world.submit("resp_b")
            assert (await world.ended("resp_b")).status == "completed"

    async def test_a_shutdown_does_not_wait_for_it(self, start: Start) -> None:
        broker = Away()
        async with start(HELD, broker=broker) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            broker.is_away = True
            world.engine.may_go_on.set()
            await asyncio.sleep(0.05)
            world.task.cancel()
            await asyncio.wait_for(asyncio.wait([world.task]), SOON_S)
            assert not world.engine.open


class Away(EmbeddedBroker):
    """A broker that cannot be reached for a while. What is published then arrives, but the answer is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    async def publish(
        self,
        lease: Lease,
        events: Sequence[Event],
        *,
        num_before: int | None = None,
        token_ids: Sequence[int] | None = None,
    ) -> None:
        await super().publish(lease, events, num_before=num_before, token_ids=token_ids)
        self._fail()

    async def give_back(self, lease: Lease, *, is_lost: bool = False) -> None:
        self._fail()
        await super().give_back(lease, is_lost=is_lost)

    async def heartbeat(self, status: RunnerStatus) -> None:
        self._fail()
        await super().heartbeat(status)

    def _fail(self) -> None:
        if self.is_away:
            raise BrokerUnavailable("The broker cannot be reached.")


class TestDrain:
    async def test_what_runs_may_finish_and_nothing_is_taken(self, start: Start) -> None:
        async with start(HELD, max_num_seqs=2) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            draining = asyncio.create_task(world.runner.drain(SOON_S))
            await asyncio.sleep(0.01)
            (runner,) = await world.broker.runners()
            assert (runner.is_ready, runner.num_running) == (False, 1)
            assert "stop" in runner.detail
            await world.submit("resp_b")
            assert not draining.done()
            world.engine.may_go_on.set()
            assert (await world.ended("resp_a")).status == "completed"
            await asyncio.wait_for(draining, SOON_S)
            assert [request.request_id for request in world.engine.requests] == ["resp_a-1"]
            (left,) = await world.broker.take("r2", room=1)
            assert left.job.response_id == "resp_b"

    async def test_what_does_not_finish_is_given_to_another_runner(self, start: Start) -> None:
        async with start(HELD) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            await spare(world.broker)
            await world.runner.drain(0.05)
            assert not world.engine.open
            (again,) = await world.broker.take("r2", room=1)
            assert (again.job.response_id, again.attempt) == ("resp_a", 2)
            await world.broker.publish(again, [done(again.job)])
            assert (await world.ended("resp_a")).status == "completed"

    async def test_without_another_runner_it_fails(self, start: Start) -> None:
        async with start(HELD) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            await world.runner.drain(0.05)
            response = await world.ended("resp_a")
            assert response.error is not None
            assert (response.error.code, response.error.retryable) == ("engine_dead", True)

    async def test_an_idle_runner_is_done_at_once(self, start: Start) -> None:
        async with start(HELD) as world:
            await asyncio.sleep(0)  # it waits for work now
            await asyncio.wait_for(world.runner.drain(60.0), SOON_S)


class TestShutdown:
    @pytest.mark.timeout(30)
    @pytest.mark.parametrize("num_turns", range(6))
    async def test_it_ends_although_the_engine_has_just_answered(self, start: Start, num_turns: int) -> None:
        async with start(ANSWER) as world:
            world.engine.answers.clear()
            await asyncio.sleep(0.01)  # it has asked the engine how it is
            world.engine.answers.set()
            for _ in range(num_turns):
                await asyncio.sleep(0)
        assert world.task.cancelled()

    async def test_what_is_open_ends_with_failed(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        async with start(HELD) as world:
            await world.submit("resp_a")
            await world.submit("resp_b")
            await world.engine.until_open(2)
            world.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await world.task
            for name in ("resp_a", "resp_b"):
                response = await world.ended(name)
                assert response.status == "failed"
                assert response.error is not None
                assert (response.error.code, response.error.retryable) == ("engine_dead", True)
                assert response.steps[0] == TextStep(index=0, text="Go. ")
            assert not world.engine.open
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_a_closed_broker_ends_the_runner(self, start: Start) -> None:
        async with start(HELD) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            await world.broker.aclose()
            await asyncio.wait([world.task], timeout=SOON_S)
            assert world.task.done()
            assert not world.engine.open
