"""The broker on Redis passes the contract, against a real server."""

from collections.abc import AsyncIterator

import pytest

from broker.limits import BrokerLimits
from broker.open import open_broker
from contracts.broker import Broker
from tests.broker.contract import BrokerContract, MakeBroker
from tests.broker.redis_brokers import TwoProcesses, settings
from tests.broker.redis_server import RedisServer


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
