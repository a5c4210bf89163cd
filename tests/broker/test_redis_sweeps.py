"""What a sweeper remembers and how often it asks is bounded by what is open, not by what there ever was."""

from collections.abc import AsyncIterator

import pytest

from broker.redis.broker import RedisBroker
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import done, image, job, status

NUM_JOBS = 60


@pytest.fixture
async def broker(redis_server: RedisServer) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(settings(redis_server))
    await broker.heartbeat(status("r1"))
    yield broker
    await broker.aclose()


async def answer(broker: RedisBroker) -> None:
    (lease,) = await broker.take("r1", room=1)
    await broker.publish(lease, [done(lease.job)])


async def test_pictures_of_ended_jobs_are_not_remembered(broker: RedisBroker) -> None:
    """While there is always one that is needed, so that a round never finds nothing."""
    for service in broker._services:  # the test walks by itself
        service.cancel()
    sweeper, kept = broker._sweeper, image(b"kept")
    await broker.put_image(kept)
    for number in range(NUM_JOBS):
        picture = image(b"%d" % number)
        await broker.put_image(picture)
        await broker.submit(job(f"resp_{number}", images=(picture.ref,)))
        await broker._images.pin([kept.ref.id], f"resp_orphan{number}")
        await sweeper._walk_images()
        await answer(broker)
        await broker._images.unpin([kept.ref.id], f"resp_orphan{number}")
    await broker.submit(job("resp_open", images=(kept.ref,)))
    for _ in range(3):
        await sweeper._walk_images()
    assert set(sweeper._kept_at) == {kept.ref.id}
    assert sweeper._orphans == {}
    assert len(sweeper._walked) <= 1
