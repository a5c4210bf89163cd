"""How every broker comes to an end of each response: cancelled, late, given back, or its runner gone."""

import asyncio
from collections.abc import Sequence

import pytest

from contracts.broker import Broker, LeaseLost
from contracts.events import Cancelled, Failed, Restarted
from contracts.jobs import Lease
from tests.broker.contract_base import LIMITS, NERVOUS, SHORT_S, SOON_S, ContractBase, Heartbeats
from tests.broker.samples import delta, done, job, next_cancellation, read, status, types


async def take_all(broker: Broker, runner_id: str, num_jobs: int) -> Sequence[Lease]:
    """So many jobs in the order in which they are given, however few a call gives."""
    leases: list[Lease] = []
    while len(leases) < num_jobs:
        leases += await asyncio.wait_for(broker.take(runner_id, room=num_jobs - len(leases)), SOON_S)
    return leases


class EndingsContract(ContractBase):
    async def test_a_waiting_job_is_cancelled_at_once(self, broker: Broker) -> None:
        await broker.submit(job("resp_a", metadata={"k": "v"}))
        await broker.submit(job("resp_b"))
        await broker.cancel("resp_a")
        await broker.cancel("resp_a")
        events = await read(broker, "resp_a")
        assert types(events) == ["created", "queued", "cancelled"]
        end = events[-1]
        assert isinstance(end, Cancelled)
        assert (end.response.id, end.response.status, end.response.finish_reason) == (
            "resp_a",
            "cancelled",
            "cancelled",
        )
        assert end.response.metadata == {"k": "v"}
        assert end.response.timings.total_ms is not None
        (lease,) = await broker.take("r1", room=5)
        assert lease.job.response_id == "resp_b"

    async def test_the_runner_of_a_running_job_hears_of_its_cancellation_once(self, broker: Broker) -> None:
        lease = await self.leased(broker)
        await broker.submit(job("resp_b"))
        (other,) = await broker.take("r2", room=1)
        await broker.cancel("resp_a")  # before anybody listens
        heard = broker.cancellations("r1")
        assert await next_cancellation(heard) == "resp_a"
        await broker.cancel("resp_a")
        waiting = asyncio.create_task(next_cancellation(heard))
        unconcerned = asyncio.create_task(next_cancellation(broker.cancellations("r2")))
        await asyncio.sleep(SHORT_S)
        assert not waiting.done()
        assert not unconcerned.done()
        await broker.publish(lease, [done(lease.job)])
        await broker.cancel("resp_a")  # finished: nothing happens
        await broker.cancel("resp_b")
        assert await unconcerned == "resp_b"
        assert not waiting.done()
        await broker.publish(other, [done(other.job)])
        waiting.cancel()
        await asyncio.wait([waiting])

    async def test_a_runner_is_known_while_it_is_heard_of(self, nervous: Broker) -> None:
        assert list(await nervous.runners()) == []
        await nervous.heartbeat(status("r1", is_ready=False))
        await nervous.heartbeat(status("r1"))
        await nervous.heartbeat(status("r2"))
        assert sorted(await nervous.runners(), key=lambda runner: runner.runner_id) == [status("r1"), status("r2")]
        await asyncio.sleep(NERVOUS.runner_silence_s * 1.5)
        assert list(await nervous.runners()) == []

    async def test_another_runner_takes_over_from_a_silent_one(self, nervous: Broker) -> None:
        lease = await self.leased(nervous)
        await nervous.publish(lease, [delta("resp_a", "half")])
        async with Heartbeats(nervous, "r2"):
            (again,) = await asyncio.wait_for(nervous.take("r2", room=1), 5)
            assert again.attempt == 2
            assert again.job == lease.job
            with pytest.raises(LeaseLost):
                await nervous.publish(lease, [delta("resp_a", "from the grave")])
            await nervous.publish(again, [done(again.job)])
        events = await read(nervous, "resp_a")
        assert types(events) == ["created", "queued", "delta", "restarted", "completed"]
        assert [event.attempt for event in events if isinstance(event, Restarted)] == [2]

    async def test_without_a_spare_runner_the_response_fails(self, nervous: Broker) -> None:
        await self.leased(nervous)
        end = (await asyncio.wait_for(read(nervous, "resp_a"), 5))[-1]
        assert isinstance(end, Failed)
        assert (end.error.code, end.error.retryable) == ("engine_dead", True)
        assert end.response.error == end.error
        assert (end.response.status, end.response.finish_reason) == ("failed", "error")

    async def test_a_job_that_no_runner_can_start_fails(self, nervous: Broker) -> None:
        await nervous.submit(job("resp_a"))
        end = (await asyncio.wait_for(read(nervous, "resp_a"), 5))[-1]
        assert isinstance(end, Failed)
        assert end.error.code == "engine_dead"

    async def test_a_cancelled_job_of_a_silent_runner_is_not_started_again(self, nervous: Broker) -> None:
        await self.leased(nervous)
        await nervous.cancel("resp_a")
        async with Heartbeats(nervous, "r2"):
            events = await asyncio.wait_for(read(nervous, "resp_a"), 5)
        assert types(events) == ["created", "queued", "cancelled"]

    async def test_a_job_that_is_late_before_it_starts_ends_at_once(self, broker: Broker) -> None:
        await broker.submit(job("resp_late", timeout_s=0.2))
        await broker.submit(job("resp_b"))
        events = await asyncio.wait_for(read(broker, "resp_late"), SOON_S)
        assert types(events) == ["created", "queued", "failed"]
        end = events[-1]
        assert isinstance(end, Failed)
        assert (end.error.code, end.error.retryable) == ("deadline_exceeded", False)
        (lease,) = await broker.take("r1", room=5)
        assert lease.job.response_id == "resp_b"
        assert lease.time_left_s is None

    async def test_a_runner_is_told_how_much_time_is_left(self, broker: Broker) -> None:
        await broker.submit(job("resp_a", timeout_s=60.0))
        await asyncio.sleep(0.2)
        (lease,) = await broker.take("r1", room=1)
        assert lease.time_left_s is not None
        assert 30 < lease.time_left_s < 59.9
        await broker.publish(lease, [done(lease.job)])

    async def test_a_runner_that_does_not_end_a_late_job_loses_it(self, broker: Broker) -> None:
        async with Heartbeats(broker, "r1"):
            await broker.submit(job("resp_a", timeout_s=0.3))
            (lease,) = await broker.take("r1", room=1)
            events = await asyncio.wait_for(read(broker, "resp_a"), SOON_S)
            with pytest.raises(LeaseLost):
                await broker.publish(lease, [done(lease.job)])
        end = events[-1]
        assert isinstance(end, Failed)
        assert end.error.code == "deadline_exceeded"

    async def test_what_a_runner_gives_back_another_one_starts_before_all_that_wait(self, broker: Broker) -> None:
        async with Heartbeats(broker, "r1"), Heartbeats(broker, "r2"):
            lease = await self.leased(broker)
            await broker.publish(lease, [delta("resp_a", "half")])
            await broker.submit(job("resp_b"))
            await broker.give_back(lease)
            with pytest.raises(LeaseLost):
                await broker.publish(lease, [delta("resp_a", "late")])
            with pytest.raises(LeaseLost):
                await broker.give_back(lease)
            again, other = await take_all(broker, "r2", 2)
            assert (again.job, again.attempt) == (lease.job, 2)
            assert other.job.response_id == "resp_b"
            await broker.publish(again, [done(again.job)])
        events = await read(broker, "resp_a")
        assert types(events) == ["created", "queued", "delta", "restarted", "completed"]
        assert [event.sequence_number for event in events] == list(range(5))

    async def test_giving_back_uses_up_no_attempt(self, broker: Broker) -> None:
        await broker.submit(job("resp_a"))
        for attempt in range(1, LIMITS.max_attempts + 3):
            mine, other = ("r1", "r2") if attempt % 2 else ("r2", "r1")
            await broker.heartbeat(status(mine))
            await broker.heartbeat(status(other))
            (lease,) = await asyncio.wait_for(broker.take(mine, room=1), SOON_S)
            assert lease.attempt == attempt
            await broker.give_back(lease)
        assert types(await broker.events("resp_a"))[-1] == "restarted"

    async def test_losing_the_work_uses_up_an_attempt(self, broker: Broker) -> None:
        """A job that engines die of must not get to the last of them."""
        await broker.submit(job("resp_a"))
        for attempt in range(1, LIMITS.max_attempts + 1):
            for runner_id in ("r1", "r2"):
                await broker.heartbeat(status(runner_id))
            (lease,) = await asyncio.wait_for(broker.take(f"r{2 - attempt % 2}", room=1), SOON_S)
            assert lease.attempt == attempt
            await broker.publish(lease, [delta("resp_a", "x")], num_before=0)
            await broker.give_back(lease, is_lost=True)
        end = (await asyncio.wait_for(read(broker, "resp_a"), SOON_S))[-1]
        assert isinstance(end, Failed)
        assert (end.error.code, end.error.retryable) == ("engine_dead", True)

    async def test_what_is_given_back_and_nobody_else_can_take_fails(self, broker: Broker) -> None:
        await broker.heartbeat(status("r1"))
        await broker.heartbeat(status("r2", is_ready=False))
        lease = await self.leased(broker)
        await broker.give_back(lease)
        end = (await asyncio.wait_for(read(broker, "resp_a"), SOON_S))[-1]
        assert isinstance(end, Failed)
        assert (end.error.code, end.error.retryable) == ("engine_dead", True)

    async def test_what_is_given_back_and_was_cancelled_is_cancelled(self, broker: Broker) -> None:
        async with Heartbeats(broker, "r2"):
            lease = await self.leased(broker)
            await broker.cancel("resp_a")
            await broker.give_back(lease)
            events = await asyncio.wait_for(read(broker, "resp_a"), SOON_S)
        assert types(events) == ["created", "queued", "cancelled"]
