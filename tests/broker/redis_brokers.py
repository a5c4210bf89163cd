"""Brokers on Redis for tests: one of them, or two objects that share a server as two processes do."""

import dataclasses
from typing import Any

from broker.limits import BrokerLimits
from broker.redis.broker import RedisBroker
from broker.settings import BrokerSettings
from tests.broker.redis_server import RedisServer, fresh_prefix

RUNNER_CALLS = {"take", "publish", "give_back", "cancellations", "get_image", "heartbeat"}
DEFAULTS = BrokerLimits()


def settings(
    server: RedisServer, limits: BrokerLimits = DEFAULTS, *, prefix: str | None = None, **more: Any
) -> BrokerSettings:
    return BrokerSettings(
        redis_url=server.url, key_prefix=prefix or fresh_prefix(), **dataclasses.asdict(limits), **more
    )


class TwoProcesses:
    """A ``Broker`` whose gateway's calls and runner's calls go to two objects."""

    def __init__(self, of: BrokerSettings) -> None:
        self._gateway, self._runner = RedisBroker(of), RedisBroker(of)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner if name in RUNNER_CALLS else self._gateway, name)

    async def aclose(self) -> None:
        await self._runner.aclose()
        await self._gateway.aclose()


def client_of(broker: RedisBroker) -> Any:
    """redis-py's, to look behind the broker."""
    return broker._link._servers._server.client  # type: ignore[attr-defined]
