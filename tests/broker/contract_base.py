"""What the parts of the contract suite share: brokers to test, and runners that are there.

Times are real and short, so that a broker in another process can run the same tests; no test needs one to be exact.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from broker.limits import BrokerLimits
from contracts.broker import Broker
from contracts.jobs import Lease
from tests.broker.samples import job, status

LIMITS = BrokerLimits(max_waiting=3, deadline_slack_s=0.3)
NERVOUS = BrokerLimits(max_waiting=3, runner_silence_s=0.3, no_runner_grace_s=0.3)
ROOMY = BrokerLimits(max_waiting=1000)
SHORT_S = 0.1  # for a call to reach the broker
SOON_S = 5.0  # far more than anything here takes

MakeBroker = Callable[[BrokerLimits], Awaitable[Broker]]


class ContractBase:
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

    @pytest.fixture
    async def roomy(self, make_broker: MakeBroker) -> AsyncIterator[Broker]:
        broker = await make_broker(ROOMY)
        yield broker
        await broker.aclose()

    async def leased(self, broker: Broker, response_id: str = "resp_a", runner_id: str = "r1") -> Lease:
        await broker.submit(job(response_id))
        (lease,) = await broker.take(runner_id, room=1)
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
