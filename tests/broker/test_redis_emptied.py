"""Redis is lost in the middle of a submission, and comes back empty: a key still stands for one response."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from broker.redis import broker as module
from broker.redis.broker import RedisBroker
from broker.redis.link import Argument, Link
from contracts.jobs import Idempotency
from tests.broker.redis_brokers import client_of, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import job, status

KEY = Idempotency(key="k", body_sha256="x")


class EmptiedLink(Link):
    """Before its n-th script from now on, ``empty`` is called."""

    num_left: int | None = None
    empty: Callable[[], Awaitable[None]]

    async def run(self, name: str, keys: Sequence[str], *args: Argument) -> Any:
        if self.num_left == 0:
            self.num_left = None
            await self.empty()
        elif self.num_left is not None:
            self.num_left -= 1
        return await super().run(name, keys, *args)


# Without pictures a submission with a key has five scripts; before the first there is nothing to lose.
@pytest.mark.parametrize("num_scripts", [1, 2, 3, 4])
async def test_a_key_stands_for_one_response(
    num_scripts: int, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = settings(redis_server)
    other = RedisBroker(of)
    monkeypatch.setattr(module, "Link", EmptiedLink)
    broker = RedisBroker(of)
    link = broker._link
    assert isinstance(link, EmptiedLink)
    again: list[str] = []

    async def empty() -> None:
        """And the client, who has heard nothing, asks another gateway."""
        client = client_of(other)
        async for key in client.scan_iter(match=f"{of.key_prefix}:*"):
            await client.delete(key)
        await other.heartbeat(status("r1"))
        again.append(await other.submit(job("resp_b"), idempotency=KEY))

    link.empty = empty
    for service in broker._services:  # only the submission's own scripts count
        service.cancel()
    try:
        await broker.heartbeat(status("r1"))
        link.num_left = num_scripts
        assert await broker.submit(job("resp_a"), idempotency=KEY) == "resp_b"
        assert again == ["resp_b"]
        assert [lease.job.response_id for lease in await other.take("r1", room=4)] == ["resp_b"]
    finally:
        await broker.aclose()
        await other.aclose()
