"""Logs that are very long, and positions that are."""

import asyncio

import pytest

from broker.redis.broker import RedisBroker
from contracts.errors import BrokerUnavailable
from tests.broker.redis_brokers import client_of, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, job, read, types

SOON_S = 5.0
NUM_DELTAS, NUM_KEPT = 3000, 2600  # several nodes of a stream; a trim takes whole ones


@pytest.mark.parametrize("starting_after", [10**9, 10**14, 10**15, 2**63, 10**20])
async def test_a_position_that_no_log_reaches(redis_server: RedisServer, starting_after: int) -> None:
    """Nothing comes before the end, and then nothing either; it is no error of Redis."""
    broker = RedisBroker(settings(redis_server))
    await broker.submit(job("resp_a"))
    reading = asyncio.create_task(read(broker, "resp_a", starting_after=starting_after))
    (lease,) = await broker.take("r1", room=1)
    await asyncio.sleep(0.05)
    assert not reading.done()
    await broker.publish(lease, [done(lease.job)])
    assert await asyncio.wait_for(reading, SOON_S) == []
    await broker.aclose()


async def test_a_log_whose_beginning_was_trimmed(redis_server: RedisServer) -> None:
    """As MAXLEN trims one that is longer. It is not told as if it began there, and no part of it is told twice."""
    of = settings(redis_server)
    broker = RedisBroker(of)
    await broker.submit(job("resp_a"))
    (lease,) = await broker.take("r1", room=1)
    for first in range(0, NUM_DELTAS, 50):
        await broker.publish(lease, [delta("resp_a", str(first + n)) for n in range(50)])
    await client_of(broker).xtrim(broker._logs.channel("resp_a"), maxlen=NUM_KEPT, approximate=False)
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(read(broker, "resp_a"), SOON_S)
    with pytest.raises(BrokerUnavailable):
        await broker.events("resp_a")  # of which nobody could fold an answer
    await broker.publish(lease, [done(lease.job)])
    there = await broker.events("resp_a")
    last = 2 + NUM_DELTAS  # after response.created and response.queued
    assert [event.sequence_number for event in there] == list(range(last - NUM_KEPT, last + 1))
    assert types(there)[-1] == "completed"
    resumed = await asyncio.wait_for(read(broker, "resp_a", starting_after=last - 1000), SOON_S)
    assert [event.sequence_number for event in resumed] == list(range(last - 999, last + 1))
    await client_of(broker).delete(broker._logs.channel("resp_a"))
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(read(broker, "resp_a"), SOON_S)
    await broker.aclose()
