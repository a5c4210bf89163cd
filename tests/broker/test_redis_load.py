"""What Redis itself says of the queue: the group's lag is what waits, by which runners are scaled, and its pending
entries are what runs."""

from contextlib import aclosing
from typing import Any

from broker.redis.broker import RedisBroker
from tests.broker.redis_brokers import client_of, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, job, status

CAP, NODE = (
    100_000,
    100,
)  # of events in a log; entries in a node of a stream by Redis's defaults, of which it drops whole ones
AT_ONCE = 10_000


async def load(broker: RedisBroker) -> tuple[int, int]:
    """What waits and what runs."""
    (group,) = await client_of(broker).xinfo_groups(broker._keys.jobs)
    assert group["name"] == b"runners"
    return group["lag"], group["pending"]


async def test_the_lag_of_the_group_is_what_waits_and_its_pending_entries_are_what_runs(
    redis_server: RedisServer,
) -> None:
    async with aclosing(RedisBroker(settings(redis_server))) as broker:
        for runner_id in ("r1", "r2"):
            await broker.heartbeat(status(runner_id))
        for number in range(5):
            await broker.submit(job(f"resp_{number}"))
        assert await load(broker) == (5, 0)
        first, second = await broker.take("r1", room=2)
        assert await load(broker) == (3, 2)
        await broker.cancel("resp_4")
        assert await load(broker) == (2, 2)
        await broker.give_back(first)
        assert await load(broker) == (3, 1)
        leases = [second, *await broker.take("r2", room=9)]
        assert await load(broker) == (0, 4)
        for lease in leases:
            await broker.publish(lease, [done(lease.job)])
        assert await load(broker) == (0, 0)


async def test_a_log_has_so_many_events_at_most(redis_server: RedisServer) -> None:
    async with aclosing(RedisBroker(settings(redis_server))) as broker:
        await broker.submit(job("resp_a"))
        (lease,) = await broker.take("r1", room=1)
        deltas: list[Any] = [delta("resp_a", "x")] * AT_ONCE
        for _ in range(CAP // AT_ONCE):
            await broker.publish(lease, deltas)
        await broker.publish(lease, [delta("resp_a", "x")] * (2 * NODE))
        client, (_, events) = client_of(broker), broker._keys.response("resp_a")
        assert await client.xlen(events) <= CAP + NODE
        assert (await client.xinfo_stream(events))["last-generated-id"] == b"%d-0" % (2 + CAP + 2 * NODE)
        await broker.publish(lease, [done(lease.job)])
