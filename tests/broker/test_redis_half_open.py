"""Connections to Redis that stay open and carry nothing any more, as when a firewall forgot them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from broker.redis.broker import RedisBroker
from broker.settings import BrokerSettings
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, job, read, status, types
from tests.faults.proxy import Proxy

FEW_S = 10.0  # two pings, or a call that is not answered and one that is


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(redis_server.port) as proxy:
        yield proxy


def through(proxy: Proxy, of: BrokerSettings) -> BrokerSettings:
    return of.model_copy(update={"redis_url": of.redis_url.replace(str(proxy.target), str(proxy.port))})


async def num_subscribers(server: RedisServer) -> int:
    async with Redis.from_url(server.url) as client:
        return len(await client.client_list(_type="pubsub"))


async def test_a_gateway_and_a_runner_find_out_by_themselves(redis_server: RedisServer, proxy: Proxy) -> None:
    of = through(proxy, settings(redis_server))
    gateway, runner = RedisBroker(of), RedisBroker(of)
    await runner.heartbeat(status("r1"))
    await gateway.submit(job("resp_a"))
    (lease,) = await runner.take("r1", room=1)
    reading = asyncio.create_task(read(gateway, "resp_a"))
    await runner.publish(lease, [delta("resp_a", "before")], num_before=0)
    await asyncio.sleep(0.2)
    num_before = await num_subscribers(redis_server)
    assert num_before == 2
    proxy.freeze()
    async with asyncio.timeout(FEW_S):
        await runner.publish(lease, [delta("resp_a", "after")], num_before=1)
    async with asyncio.timeout(FEW_S):
        while await num_subscribers(redis_server) < 2 * num_before:  # noqa: ASYNC110 - until both subscribe anew
            await asyncio.sleep(0.1)
    await runner.publish(lease, [done(lease.job)])
    async with asyncio.timeout(FEW_S):
        assert types(await reading) == ["created", "queued", "delta", "delta", "completed"]
    await runner.aclose()
    await gateway.aclose()
