"""What a sweeper remembers and how often it asks is bounded by what is open, not by what there ever was."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from broker.redis.broker import RedisBroker
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import done, image, job, read, status, types

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


async def test_deadlines_of_ended_jobs_cost_nothing(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each was a reason to sweep, twice; now only the earliest is waited for, and the next one is asked for."""
    calls: Counter[str] = Counter()
    run = broker._link.run

    async def count(name: str, keys: Sequence[str], *args: Any) -> Any:
        calls[name] += 1
        return await run(name, keys, *args)

    monkeypatch.setattr(broker._link, "run", count)
    for number in range(NUM_JOBS):
        await broker.submit(job(f"resp_{number}", timeout_s=1.0 + number / 100))
        await answer(broker)
    await broker.submit(job("resp_late", timeout_s=1.5))
    began_at = asyncio.get_running_loop().time()
    calls.clear()
    events = await read(broker, "resp_late")
    assert types(events)[-1] == "failed"
    assert 1.4 < asyncio.get_running_loop().time() - began_at < 1.9
    assert calls["overdue"] <= 3  # when the first was due, and when the open one was
    assert calls["sweep"] <= 3  # one a second


async def test_the_time_of_many_is_up_at_once(broker: RedisBroker) -> None:
    """Those that wait end then; one that runs has a moment in which its runner can end it."""
    await broker.submit(job("resp_running", timeout_s=0.5))
    (lease,) = await broker.take("r1", room=1)
    waiting = [f"resp_{number}" for number in range(NUM_JOBS)]
    for response_id in waiting:
        await broker.submit(job(response_id, timeout_s=0.5))
    async with asyncio.timeout(5):
        for response_id in waiting:
            assert types(await read(broker, response_id))[-1] == "failed"
    await broker.publish(lease, [done(lease.job)])
    assert broker._sweeper._timer is not None  # for what still ran when the others' time was up
