"""The broker on Redis passes the contract, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from broker.limits import BrokerLimits
from broker.open import open_broker
from broker.redis.logs import Logs
from contracts.broker import Broker
from tests.broker.contract import BrokerContract, MakeBroker
from tests.broker.contract_base import SHORT_S
from tests.broker.redis_brokers import TwoProcesses, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, job, read, types


async def test_deltas_cost_nothing_to_who_follows_without_them(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_pages = 0
    page = Logs.page

    async def counted(self: Logs, response_id: str, first: int) -> Any:
        nonlocal num_pages
        num_pages += 1
        return await page(self, response_id, first)

    monkeypatch.setattr(Logs, "page", counted)
    async with aclosing(await open_broker(settings(redis_server))) as broker:
        await broker.submit(job("resp_a"))
        (lease,) = await broker.take("r1", room=1)
        reading = asyncio.create_task(read(broker, "resp_a", deltas=False))
        await asyncio.sleep(SHORT_S)
        num_before = num_pages
        for _ in range(10):
            await broker.publish(lease, [delta("resp_a", "x")])
            await asyncio.sleep(SHORT_S / 10)
        assert num_pages == num_before
        await broker.publish(lease, [done(lease.job)])
        assert types(await reading)[-1] == "completed"
        assert num_pages > num_before


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
