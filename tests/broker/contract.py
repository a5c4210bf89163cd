"""What every broker does. An implementation binds this suite by subclassing it with a ``make_broker`` fixture.

Times are real and short, so that a broker in another process can run the same tests.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from broker.limits import BrokerLimits
from contracts.broker import Broker, BrokerClosed, LeaseLost
from contracts.errors import ImageNotFound, Overloaded, ResponseNotFound
from contracts.events import Cancelled, Created, Failed, InProgress, Queued, Restarted, fold
from contracts.jobs import Lease
from tests.broker.samples import delta, done, image, job, next_cancellation, read, status, types

LIMITS = BrokerLimits(max_waiting=3)
NERVOUS = BrokerLimits(max_waiting=3, runner_silence_s=0.3, no_runner_grace_s=0.3)
SHORT_S = 0.05

MakeBroker = Callable[[BrokerLimits], Awaitable[Broker]]


class BrokerContract:
    @pytest.fixture
    async def broker(self, make_broker: MakeBroker) -> AsyncIterator[Broker]:
        broker = await make_broker(LIMITS)
        yield broker
        await broker.aclose()

    @pytest.fixture
    async def nervous(self, make_broker: MakeBroker) -> AsyncIterator[Broker]:
        """A broker that soon takes a silent runner for a dead one."""
        broker = await make_broker(NERVOUS)
        yield broker
        await broker.aclose()

    async def test_an_image_comes_back_as_it_was_put(self, broker: Broker) -> None:
        stored = image(b"picture")
        await broker.put_image(stored)
        await broker.put_image(stored)
        assert await broker.get_image(stored.ref.id) == stored

    async def test_an_unknown_image_is_refused_everywhere(self, broker: Broker) -> None:
        ref = image(b"never put").ref
        with pytest.raises(ImageNotFound):
            await broker.get_image(ref.id)
        with pytest.raises(ImageNotFound):
            await broker.submit(job("resp_a", images=(ref,)))
        with pytest.raises(ResponseNotFound):
            await broker.job("resp_a")

    async def test_a_job_reaches_a_runner_and_its_events_a_reader(self, broker: Broker) -> None:
        stored = image(b"picture")
        await broker.put_image(stored)
        taking = asyncio.create_task(broker.take("r1", room=2))
        await asyncio.sleep(SHORT_S)
        sent = job("resp_a", images=(stored.ref,), metadata={"k": "v"})
        await broker.submit(sent)
        (lease,) = await taking
        assert lease.job == sent == await broker.job("resp_a")
        assert lease.attempt == 1
        assert 0 <= lease.queue_ms < 1000

        reading = asyncio.create_task(read(broker, "resp_a"))
        await broker.publish(lease, [InProgress(response_id="resp_a", queue_ms=1.0, cached_tokens=0)])
        await broker.publish(lease, [delta("resp_a", "hel"), delta("resp_a", "lo"), done(sent)])
        events = await reading
        assert types(events) == ["created", "in_progress", "delta", "delta", "completed"]
        assert [event.sequence_number for event in events] == [0, 1, 2, 3, 4]
        assert isinstance(events[0], Created)
        assert events[0].images == (stored.ref,)
        assert list(await broker.events("resp_a")) == events
        assert fold(sent, events).metadata == {"k": "v"}

    async def test_position_counts_from_one_and_only_those_who_wait_have_one(self, broker: Broker) -> None:
        taking = asyncio.create_task(broker.take("r1", room=1))
        await asyncio.sleep(SHORT_S)
        for name in ("resp_a", "resp_b", "resp_c"):
            await broker.submit(job(name))
        await taking
        assert types(await broker.events("resp_a")) == ["created"]
        positions = [(await broker.events(name))[1] for name in ("resp_b", "resp_c")]
        assert [event.position for event in positions if isinstance(event, Queued)] == [1, 2]

    async def test_too_many_waiting_jobs_are_refused_and_nothing_is_kept(self, broker: Broker) -> None:
        for index in range(LIMITS.max_waiting):
            await broker.submit(job(f"resp_{index}"))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_over"))
        with pytest.raises(ResponseNotFound):
            await broker.job("resp_over")
        assert len(await broker.take("r1", room=9)) == LIMITS.max_waiting
        await broker.submit(job("resp_after"))

    async def test_take_gives_the_oldest_first_and_no_more_than_there_is_room_for(self, broker: Broker) -> None:
        for name in ("resp_a", "resp_b", "resp_c"):
            await broker.submit(job(name))
        first = await broker.take("r1", room=2)
        second = await broker.take("r2", room=2)
        assert [lease.job.response_id for lease in first] == ["resp_a", "resp_b"]
        assert [lease.job.response_id for lease in second] == ["resp_c"]

    async def test_two_waiting_runners_get_a_job_each(self, broker: Broker) -> None:
        takes = [asyncio.create_task(broker.take(name, room=1)) for name in ("r1", "r2")]
        await asyncio.sleep(SHORT_S)
        await broker.submit(job("resp_a"))
        await broker.submit(job("resp_b"))
        leases = [lease for leases in await asyncio.gather(*takes) for lease in leases]
        assert {lease.job.response_id for lease in leases} == {"resp_a", "resp_b"}

    async def test_a_cancelled_take_loses_no_job(self, broker: Broker) -> None:
        abandoned = asyncio.create_task(broker.take("r1", room=1))
        await asyncio.sleep(SHORT_S)
        await broker.submit(job("resp_a"))
        abandoned.cancel()
        await asyncio.wait([abandoned])
        leases = [] if abandoned.cancelled() else list(abandoned.result())
        if not leases:
            leases = list(await broker.take("r2", room=1))
        assert [lease.job.response_id for lease in leases] == ["resp_a"]

    async def test_a_reader_can_begin_anywhere(self, broker: Broker) -> None:
        lease = await self._leased(broker)
        await broker.publish(lease, [delta("resp_a", text) for text in "abc"])
        resumed = asyncio.create_task(read(broker, "resp_a", starting_after=2))
        early = asyncio.create_task(read(broker, "resp_a", starting_after=5))
        await asyncio.sleep(SHORT_S)
        await broker.publish(lease, [delta("resp_a", "d"), done(lease.job)])
        whole = await read(broker, "resp_a")
        assert await resumed == whole[3:]
        assert await early == whole[6:]
        assert await read(broker, "resp_a", starting_after=len(whole) - 1) == []
        assert await read(broker, "resp_a", starting_after=len(whole) + 7) == []

    async def test_many_readers_read_the_same(self, broker: Broker) -> None:
        lease = await self._leased(broker)
        readers = [asyncio.create_task(read(broker, "resp_a")) for _ in range(20)]
        for text in "abcde":
            await broker.publish(lease, [delta("resp_a", text)])
            await asyncio.sleep(0)
        await broker.publish(lease, [done(lease.job)])
        logs = await asyncio.gather(*readers)
        assert all(log == logs[0] for log in logs)
        assert [event.sequence_number for event in logs[0]] == list(range(len(logs[0])))

    async def test_what_nobody_knows_is_not_found(self, broker: Broker) -> None:
        with pytest.raises(ResponseNotFound):
            await broker.job("resp_x")
        with pytest.raises(ResponseNotFound):
            await broker.events("resp_x")
        with pytest.raises(ResponseNotFound):
            await broker.cancel("resp_x")
        with pytest.raises(ResponseNotFound):
            await read(broker, "resp_x")

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
        lease = await self._leased(broker)
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

    async def test_a_closed_response_takes_no_more_events(self, broker: Broker) -> None:
        lease = await self._leased(broker)
        await broker.publish(lease, [done(lease.job)])
        with pytest.raises(LeaseLost):
            await broker.publish(lease, [delta("resp_a", "late")])
        events = await broker.events("resp_a")
        assert types(events)[-1] == "completed"

    async def test_what_cannot_be_published_is_published_in_no_part(self, broker: Broker) -> None:
        lease = await self._leased(broker)
        with pytest.raises(ValueError, match="terminal"):
            await broker.publish(lease, [done(lease.job), delta("resp_a", "after the end")])
        with pytest.raises(ValueError, match="another"):
            await broker.publish(lease, [delta("resp_a", "mine"), delta("resp_b", "not mine")])
        await broker.publish(lease, [delta("resp_a", "x")])
        events = await broker.events("resp_a")
        assert types(events) == ["created", "queued", "delta"]
        assert events[-1].sequence_number == 2

    async def test_a_runner_is_known_while_it_is_heard_of(self, nervous: Broker) -> None:
        assert list(await nervous.runners()) == []
        await nervous.heartbeat(status("r1", is_ready=False))
        await nervous.heartbeat(status("r1"))
        await nervous.heartbeat(status("r2"))
        assert sorted(await nervous.runners(), key=lambda runner: runner.runner_id) == [status("r1"), status("r2")]
        await asyncio.sleep(NERVOUS.runner_silence_s * 1.5)
        assert list(await nervous.runners()) == []

    async def test_another_runner_takes_over_from_a_silent_one(self, nervous: Broker) -> None:
        lease = await self._leased(nervous)
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
        await self._leased(nervous)
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
        await self._leased(nervous)
        await nervous.cancel("resp_a")
        async with Heartbeats(nervous, "r2"):
            events = await asyncio.wait_for(read(nervous, "resp_a"), 5)
        assert types(events) == ["created", "queued", "cancelled"]

    async def test_closing_wakes_everybody(self, broker: Broker) -> None:
        heard = broker.cancellations("r1")
        taking = asyncio.create_task(broker.take("r1", room=1))
        listening = asyncio.create_task(next_cancellation(heard))
        await asyncio.sleep(SHORT_S)
        await broker.aclose()
        with pytest.raises(BrokerClosed):
            await asyncio.wait_for(taking, 5)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(listening, 5)
        await broker.aclose()

    async def _leased(self, broker: Broker) -> Lease:
        await broker.submit(job("resp_a"))
        (lease,) = await broker.take("r1", room=1)
        return lease


class Heartbeats:
    """A runner that is ready, for as long as the block lasts."""

    def __init__(self, broker: Broker, runner_id: str) -> None:
        self._broker, self._runner_id = broker, runner_id

    async def __aenter__(self) -> None:
        await self._broker.heartbeat(status(self._runner_id))
        self._task = asyncio.create_task(self._beat())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(NERVOUS.runner_silence_s / 5)
            await self._broker.heartbeat(status(self._runner_id))
