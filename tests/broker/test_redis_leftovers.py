"""Nothing is left over: every key has a time to live, and those of ended work are gone after it."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from broker.limits import BrokerLimits
from broker.redis.broker import RedisBroker
from broker.redis.keys import Keys
from broker.settings import BrokerSettings
from contracts.broker import LeaseLost
from contracts.errors import RateLimited
from contracts.jobs import Idempotency, Lease, RateLimit
from tests.broker.redis_brokers import client_of, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, image, job, read, status, types
from tests.servers import ROOT

NUM_REQUESTS, FEW_REQUESTS = 1000, 200
AT_ONCE = 50
HOUR_S = 3600.0
GONE = (-2, 0)  # what PTTL says of a key that is not there, or is about to go
SOON_S = 60.0
POLL_S = 0.2
PICTURES = [image(bytes([number]) * 500) for number in range(16)]
DOCUMENT = ROOT / "docs" / "redis.md"


async def runner(broker: RedisBroker, runner_id: str) -> None:
    """Ends all but the slow ones, which wait for their cancellation or their deadline."""
    leases: dict[str, Lease] = {}
    unwanted: set[str] = set()

    async def end(response_id: str) -> None:
        lease = leases.pop(response_id)
        with suppress(LeaseLost):
            await broker.publish(lease, [done(lease.job)])

    async def beat() -> None:
        while True:
            await broker.heartbeat(status(runner_id))
            await asyncio.sleep(0.2)

    async def hear() -> None:
        async for response_id in broker.cancellations(runner_id):
            unwanted.add(response_id)
            if response_id in leases:
                await end(response_id)

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        group.create_task(hear())
        while True:
            for lease in await broker.take(runner_id, room=8):
                for ref in lease.job.images:
                    await broker.get_image(ref.id)
                response_id = lease.job.response_id
                with suppress(LeaseLost):
                    await broker.publish(lease, [delta(response_id, "x")])
                leases[response_id] = lease
                if not lease.job.metadata.get("slow") or response_id in unwanted:
                    await end(response_id)


async def request(gateway: RedisBroker, number: int) -> str:
    """One of every kind of request. Returns its last event."""
    owner, response_id = f"owner-{number % 7}", f"resp_{number}"
    picture = PICTURES[number % len(PICTURES)]
    with suppress(RateLimited):
        await gateway.spend(owner, RateLimit(per_minute=600.0, burst=10))
    await gateway.put_image(picture, owner=owner)
    is_slow = number % 10 == 0
    sent = job(
        response_id,
        images=(picture.ref,) if number % 3 else (),
        owner=owner,
        metadata={"slow": "yes"} if is_slow else {},
        timeout_s=0.5 if number % 20 == 0 else None,
    )
    key = Idempotency(key=f"key-{number // 2}", body_sha256="x") if number % 5 == 0 else None
    known = await gateway.submit(sent, idempotency=key, max_open=AT_ONCE)
    await gateway.note_reading([known], reader="g1", for_s=0.5)
    if is_slow and number % 20:
        await gateway.cancel(known)
    return types(await read(gateway, known))[-1]


async def many_requests(
    of: BrokerSettings, num_requests: int, look_every_s: float
) -> tuple[Counter[str], Sequence[tuple[str, str, float]]]:
    """The ends of all, and the keys there are at the end of them, and were in between: name, type, seconds left."""
    gateway, workers = RedisBroker(of), [RedisBroker(of) for _ in range(2)]
    running = [asyncio.create_task(runner(broker, f"r{n}")) for n, broker in enumerate(workers)]
    await asyncio.sleep(0.2)
    ends: Counter[str] = Counter()
    seen: dict[str, tuple[str, str, float]] = {}
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with slots:
            ends[await request(gateway, number)] += 1

    async with asyncio.timeout(SOON_S):
        asking = asyncio.gather(*(one(number) for number in range(num_requests)))
        while not asking.done():
            assert not any(task.done() for task in running)
            await asyncio.wait([asking], timeout=look_every_s)
            seen |= {key[0]: key for key in await keys_of(gateway, of)}
        await asking
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for broker in (*workers, gateway):
        await broker.aclose()
    return ends, list(seen.values())


async def keys_of(broker: RedisBroker, of: BrokerSettings) -> list[tuple[str, str, float]]:
    client = client_of(broker)
    names = [name async for name in client.scan_iter(f"{of.key_prefix}:*", count=1000)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
        pipe.pttl(name)
    answers = await pipe.execute()
    found = zip(names, answers[::2], answers[1::2], strict=True)
    return [(name.decode(), kind.decode(), left_ms / 1000) for name, kind, left_ms in found if left_ms not in GONE]


def pattern_of(name: str) -> str:
    """As the document writes it: ``ilvr:1:{resp_…}:state``."""
    name = re.sub(r"^[^:]+", "ilvr", name)
    name = re.sub(r"\{(resp|img)_[^}]*\}", r"{\1_…}", name)
    name = re.sub(r"\{owner-[^}]*\}", "{owner-…}", name)
    return re.sub(r":claim:.*", ":claim:…", name)


def documented() -> dict[str, str]:
    """The table of keys in the document: name and type."""
    rows = re.findall(r"^\| `(ilvr:1:[^`]+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
    return dict(rows)


async def test_no_key_outlives_an_hour_and_each_is_documented(
    redis_server: RedisServer,
) -> None:
    of = settings(redis_server, BrokerLimits(deadline_slack_s=0.2))
    ends, seen = await many_requests(of, FEW_REQUESTS, look_every_s=0.1)
    assert sum(ends.values()) == FEW_REQUESTS
    assert ends["completed"] > FEW_REQUESTS * 0.8
    assert ends["failed"] > 0  # those whose time was up
    for_ever = [name for name, _, left_s in seen if not 0 < left_s <= HOUR_S]
    assert for_ever == []
    kinds = {pattern_of(name): kind for name, kind, _ in seen}
    assert kinds == {name: kind for name, kind in documented().items() if name in kinds}
    assert len(kinds) > 20  # some are there for a moment only, and may not have been seen


async def test_of_a_thousand_requests_no_key_is_left_after_its_time(redis_server: RedisServer) -> None:
    limits = BrokerLimits(deadline_slack_s=0.2, keep_finished_s=4.0, image_ttl_s=4.0, runner_silence_s=1.0)
    of = settings(redis_server, limits, redis_ttl_s=6.0)
    ends, seen = await many_requests(of, NUM_REQUESTS, look_every_s=3.0)
    assert sum(ends.values()) == NUM_REQUESTS
    assert len(seen) > NUM_REQUESTS
    gateway = RedisBroker(of)  # a process that lives and sweeps
    await until_only({"{queue}:load", "{queue}:ended"}, gateway, of)
    await gateway.aclose()
    other = RedisBroker(settings(redis_server))
    await until_only({"{queue}:ended"}, other, of)  # whose 60 s are not shortened
    await other.aclose()


async def until_only(names: set[str], broker: RedisBroker, of: BrokerSettings) -> None:
    left: set[str] = set()
    for _ in range(int(SOON_S / POLL_S)):
        left = {name.rpartition(":1:")[2] for name, _, _ in await keys_of(broker, of)}
        if left <= names:
            break
        await asyncio.sleep(POLL_S)
    assert left <= names


def test_every_key_is_in_the_document() -> None:
    keys = Keys("ilvr")
    ids = [*keys.queue, *keys.images, *keys.readers("resp_a"), *keys.file("img_a"), *keys.bucket("o")]
    assert {pattern_of(name) for name in (*ids, *keys.claim("o", "k"))} == set(documented())
