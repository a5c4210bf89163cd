"""The broker on Redis passes the contract, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from broker.limits import BrokerLimits
from broker.open import open_broker
from broker.redis.logs import Logs
from broker.redis.news import KEPT
from broker.redis.wakeups import Channel
from contracts.broker import Broker
from tests.broker.contract import BrokerContract, MakeBroker
from tests.broker.contract_base import SHORT_S, SOON_S
from tests.broker.redis_brokers import TwoProcesses, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, job, read, types


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each time that a log was read, from where."""
    read_from: list[int] = []
    page = Logs.page

    async def counted(self: Logs, response_id: str, first: int) -> Any:
        read_from.append(first)
        return await page(self, response_id, first)

    monkeypatch.setattr(Logs, "page", counted)
    return read_from


@pytest.mark.parametrize("deltas", [True, False])
async def test_what_happens_while_it_is_followed_is_not_read_from_the_log(
    deltas: bool, redis_server: RedisServer, pages: list[int]
) -> None:
    async with aclosing(await open_broker(settings(redis_server))) as broker:
        await broker.submit(job("resp_a"))
        (lease,) = await broker.take("r1", room=1)
        reading = asyncio.create_task(read(broker, "resp_a", deltas=deltas))
        await asyncio.sleep(SHORT_S)
        num_before = len(pages)
        for text in "xyz":
            await broker.publish(lease, [delta("resp_a", text), delta("resp_a", text)])
            await asyncio.sleep(SHORT_S / 10)
        await broker.publish(lease, [done(lease.job)])
        events = await asyncio.wait_for(reading, SOON_S / 2)
        assert len(pages) == num_before > 0
        assert types(events) == ["created", "queued", *["delta"] * (6 * deltas), "completed"]
        assert [event.sequence_number for event in events] == ([*range(9)] if deltas else [0, 1, 8])
        assert list(await broker.events("resp_a")) == (events if deltas else await read(broker, "resp_a"))


async def test_what_a_lost_message_said_is_read_from_the_log(
    redis_server: RedisServer, pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, lost = Channel.tell, [b"deltas\n3\n", b"deltas\n5\n", b"deltas\n6\n"]

    def lossy(self: Channel, message: bytes = b"") -> None:
        if not message.startswith(tuple(lost)):
            tell(self, message)

    monkeypatch.setattr(Channel, "tell", lossy)
    async with aclosing(await open_broker(settings(redis_server))) as broker:
        await broker.submit(job("resp_a"))
        (lease,) = await broker.take("r1", room=1)
        reading = asyncio.create_task(read(broker, "resp_a"))
        await asyncio.sleep(SHORT_S)
        for number in range(2, 9):
            await broker.publish(lease, [delta("resp_a", str(number))])
            await asyncio.sleep(SHORT_S / 10)
        await broker.publish(lease, [done(lease.job)])
        events = await asyncio.wait_for(reading, SOON_S / 2)
        assert [event.sequence_number for event in events] == [*range(10)]
        assert pages[-2:] == [3, 5]
        assert events == list(await broker.events("resp_a"))


async def test_so_much_at_once_is_read_from_the_log(redis_server: RedisServer, pages: list[int]) -> None:
    async with aclosing(await open_broker(settings(redis_server))) as broker:
        await broker.submit(job("resp_a"))
        (lease,) = await broker.take("r1", room=1)
        reading = asyncio.create_task(read(broker, "resp_a"))
        await asyncio.sleep(SHORT_S)
        await broker.publish(lease, [delta("resp_a", "x" * 70_000)])
        await broker.publish(lease, [done(lease.job)])
        assert [event.sequence_number for event in await asyncio.wait_for(reading, SOON_S / 2)] == [*range(4)]
        assert 2 in pages


async def test_a_follower_that_is_slow_reads_from_the_log_what_messages_no_longer_hold(
    redis_server: RedisServer,
) -> None:
    async with aclosing(await open_broker(settings(redis_server))) as broker:
        await broker.submit(job("resp_a"))
        (lease,) = await broker.take("r1", room=1)
        following = broker.follow("resp_a")
        events = [await anext(following), await anext(following)]
        for number in range(3 * KEPT):
            await broker.publish(lease, [delta("resp_a", str(number))])
        await broker.publish(lease, [done(lease.job)])
        events += [event async for event in following]
        assert events == list(await broker.events("resp_a"))
        assert len(events) == 3 + 3 * KEPT


class TestContract(BrokerContract):
    @pytest.fixture
    async def make_broker(self, redis_server: RedisServer) -> AsyncIterator[MakeBroker]:
        made: list[Broker] = []

        async def make(limits: BrokerLimits) -> Broker:
            made.append(await open_broker(settings(redis_server, limits)))
            return made[-1]

        yield make
        for broker in made:
            await broker.aclose()


class TestContractOfTwoProcesses(BrokerContract):
    """What a gateway's object and a runner's object know of each other comes through Redis alone."""

    @pytest.fixture
    async def make_broker(self, redis_server: RedisServer) -> AsyncIterator[MakeBroker]:
        made: list[TwoProcesses] = []

        async def make(limits: BrokerLimits) -> TwoProcesses:
            made.append(TwoProcesses(settings(redis_server, limits)))
            return made[-1]

        yield make
        for broker in made:
            await broker.aclose()
