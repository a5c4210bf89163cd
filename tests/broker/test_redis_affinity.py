"""For how long a job waits for the runner that has seen its image, with room, is a setting; 0 turns it off."""

import asyncio
from contextlib import aclosing

import pytest

from broker.redis.broker import RedisBroker
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import done, image, job, status

MOMENT_S = 0.3


@pytest.mark.parametrize(("affinity_s", "is_kept"), [(10.0, True), (0.0, False)], ids=["on", "off"])
async def test_another_runner_takes_it_only_where_that_is_off(
    affinity_s: float, is_kept: bool, redis_server: RedisServer
) -> None:
    picture = image(b"seen by r1")
    async with aclosing(RedisBroker(settings(redis_server, redis_affinity_s=affinity_s))) as broker:
        await broker.put_image(picture)
        await broker.submit(job("resp_a", images=(picture.ref,)))
        (lease,) = await broker.take("r1", room=4)  # three more would fit
        await broker.publish(lease, [done(lease.job)])
        await broker.submit(job("resp_b", images=(picture.ref,)))
        other = asyncio.create_task(broker.take("r2", room=1))
        await asyncio.wait([other], timeout=MOMENT_S)
        assert other.done() is not is_kept
        (lease,) = await (broker.take("r1", room=3) if is_kept else other)
        assert lease.job.response_id == "resp_b"
        other.cancel()
        await asyncio.wait([other])


async def test_the_preference_lapses(redis_server: RedisServer) -> None:
    """The runner that has seen the picture has room, and takes nothing more."""
    picture = image(b"seen")
    async with aclosing(RedisBroker(settings(redis_server, redis_affinity_s=0.4))) as broker:
        await broker.put_image(picture)
        await broker.submit(job("resp_a", images=(picture.ref,)))
        await broker.take("knows", room=2)
        other = asyncio.create_task(broker.take("other", room=1))
        began_at = asyncio.get_running_loop().time()
        await broker.submit(job("resp_b", images=(picture.ref,)))
        (lease,) = await asyncio.wait_for(other, 2.0)
        assert asyncio.get_running_loop().time() - began_at > 0.3
        assert lease.job.response_id == "resp_b"


async def test_what_is_kept_for_a_runner_that_stops_is_anybodys_at_once(redis_server: RedisServer) -> None:
    broker = RedisBroker(settings(redis_server, redis_affinity_s=10.0))
    picture = image(b"seen")
    await broker.put_image(picture)
    await broker.submit(job("resp_a", images=(picture.ref,)))
    await broker.take("knows", room=2)  # and has room for one more
    await broker.submit(job("resp_b", images=(picture.ref,)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(broker.take("other", room=1), 0.3)
    taking = asyncio.create_task(broker.take("other", room=1))
    await asyncio.sleep(0.1)
    await broker.heartbeat(status("knows", is_ready=False))
    (lease,) = await asyncio.wait_for(taking, 2.0)
    assert lease.job.response_id == "resp_b"
    await broker.aclose()
