"""The broker on Redis passes the contract, against a real server."""

import dataclasses
from collections.abc import AsyncIterator

import pytest

from broker.limits import BrokerLimits
from broker.open import open_broker
from broker.settings import BrokerSettings
from contracts.broker import Broker
from tests.broker.contract import BrokerContract, MakeBroker
from tests.broker.redis_server import RedisServer, fresh_prefix


class TestContract(BrokerContract):
    @pytest.fixture
    async def make_broker(self, redis_server: RedisServer) -> AsyncIterator[MakeBroker]:
        made: list[Broker] = []

        async def make(limits: BrokerLimits) -> Broker:
            broker = await open_broker(
                BrokerSettings(redis_url=redis_server.url, key_prefix=fresh_prefix(), **dataclasses.asdict(limits))
            )
            made.append(broker)
            return broker

        yield make
        for broker in made:
            await broker.aclose()
