"""What every broker does with jobs and their logs."""

import asyncio
from contextlib import suppress

import pytest

from contracts.broker import Broker, BrokerClosed, LeaseLost
from contracts.errors import ResponseNotFound
from contracts.events import Created, InProgress, Queued, StepDelta, fold
from contracts.jobs import Turn
from tests.broker.contract_base import SHORT_S, SOON_S, ContractBase
from tests.broker.samples import delta, done, image, job, next_cancellation, read, types


class JobsContract(ContractBase):
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

    async def test_who_follows_without_deltas_is_told_all_else_as_it_happens(self, broker: Broker) -> None:
        lease = await self.leased(broker)
        following = broker.follow("resp_a", deltas=False)
        assert types([await anext(following), await anext(following)]) == ["created", "queued"]
        waiting = asyncio.ensure_future(anext(following))
        await broker.publish(lease, [delta("resp_a", "x")])
        await asyncio.sleep(SHORT_S)
        assert not waiting.done()
        await broker.publish(
            lease, [delta("resp_a", "y"), InProgress(response_id="resp_a", queue_ms=1.0, cached_tokens=0)]
        )
        event = await asyncio.wait_for(waiting, SOON_S / 2)  # of a broker that only looks now and then: too late
        assert (types([event]), event.sequence_number) == (["in_progress"], 4)
        await broker.publish(lease, [delta("resp_a", "z"), done(lease.job)])
        assert types([event async for event in following]) == ["completed"]
        assert types(await read(broker, "resp_a", starting_after=1, deltas=False)) == ["in_progress", "completed"]

    async def test_what_was_generated_is_kept_with_an_ended_response(self, broker: Broker) -> None:
        turns = (Turn(role="user", text="Before?"), Turn(role="assistant", token_ids=(7, 2**20, 0)))
        for name in ("resp_a", "resp_b", "resp_c"):
            await broker.submit(job(name, history=turns))
        first, second, third = await broker.take("r1", room=3)
        assert first.job.history == turns == (await broker.job("resp_a")).history
        await broker.publish(first, [delta("resp_a", "x")], num_before=0)
        assert await broker.token_ids("resp_a") is None
        for _ in range(2):  # the answer to the first call was lost
            with suppress(LeaseLost):
                await broker.publish(first, [done(first.job)], num_before=1, token_ids=(5, 151_665, 2**31))
        await broker.publish(second, [done(second.job)], token_ids=())
        await broker.publish(third, [done(third.job)])
        kept = [await broker.token_ids(name) for name in ("resp_a", "resp_b", "resp_c")]
        assert kept == [(5, 151_665, 2**31), (), None]
        with pytest.raises(ResponseNotFound):
            await broker.token_ids("resp_x")

    async def test_position_counts_from_one_and_only_those_who_wait_have_one(self, broker: Broker) -> None:
        taking = asyncio.create_task(broker.take("r1", room=1))
        await asyncio.sleep(SHORT_S)
        for name in ("resp_a", "resp_b", "resp_c"):
            await broker.submit(job(name))
        await taking
        assert types(await broker.events("resp_a")) == ["created"]
        positions = [(await broker.events(name))[1] for name in ("resp_b", "resp_c")]
        assert [event.position for event in positions if isinstance(event, Queued)] == [1, 2]

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
        lease = await self.leased(broker)
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
        lease = await self.leased(broker)
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

    async def test_a_closed_response_takes_no_more_events(self, broker: Broker) -> None:
        lease = await self.leased(broker)
        await broker.publish(lease, [done(lease.job)])
        with pytest.raises(LeaseLost):
            await broker.publish(lease, [delta("resp_a", "late")])
        events = await broker.events("resp_a")
        assert types(events)[-1] == "completed"

    async def test_what_cannot_be_published_is_published_in_no_part(self, broker: Broker) -> None:
        lease = await self.leased(broker)
        with pytest.raises(ValueError, match="terminal"):
            await broker.publish(lease, [done(lease.job), delta("resp_a", "after the end")])
        with pytest.raises(ValueError, match="another"):
            await broker.publish(lease, [delta("resp_a", "mine"), delta("resp_b", "not mine")])
        await broker.publish(lease, [delta("resp_a", "x")])
        events = await broker.events("resp_a")
        assert types(events) == ["created", "queued", "delta"]
        assert events[-1].sequence_number == 2

    async def test_what_is_published_again_is_there_once(self, broker: Broker) -> None:
        """A runner that got no answer cannot know whether its events arrived."""
        lease = await self.leased(broker)
        first, second = [delta("resp_a", text) for text in "ab"], [delta("resp_a", text) for text in "cd"]
        await broker.publish(lease, first, num_before=0)
        await broker.publish(lease, first, num_before=0)
        await broker.publish(lease, second, num_before=2)
        await broker.publish(lease, [*second, delta("resp_a", "e")], num_before=2)
        await broker.publish(lease, [done(lease.job)], num_before=5)
        events = await broker.events("resp_a")
        assert [event.text for event in events if isinstance(event, StepDelta)] == list("abcde")
        assert types(events)[-1] == "completed"
        assert [event.sequence_number for event in events] == list(range(len(events)))

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
