"""What lies in Redis, looked at from outside: what is still held, and which responses were made."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from broker.redis.keys import IMAGES, QUEUE, Keys
from broker.redis.logs import decode_job

KEYS = Keys("ilvr")
QUEUED = dict(zip(QUEUE, KEYS.queue, strict=True))
GROUP = "runners"


async def held_in_redis(url: str) -> dict[str, float]:
    """Jobs that wait or are open, entries that a runner has, images that are kept for a job; only what there is."""
    async with _connected(url) as redis:
        held = {
            "Redis waiting": await redis.zcard(QUEUED["waiting"]),
            "Redis open": await redis.hlen(QUEUED["open"]),
            "Redis leased": (await redis.xpending(QUEUED["jobs"], GROUP))["pending"]
            if await redis.exists(QUEUED["jobs"])
            else 0,
            "Redis pins": await redis.zcard(KEYS.images[IMAGES.index("pins")]),
        }
    return {name: float(count) for name, count in held.items() if count}


async def responses_in_redis(url: str) -> dict[int, set[str]]:
    """The ids of all responses that were admitted and are not forgotten, by the number in their metadata."""
    found: dict[int, set[str]] = defaultdict(set)
    async with _connected(url) as redis:
        async for key in redis.scan_iter(match="*}:state", count=1000):
            job, opened = await redis.hmget(key, "job", "opened")
            if job is not None and opened:
                content = decode_job(job)
                found[int(content.metadata["n"])].add(content.response_id)
    return found


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(url)
    try:
        yield redis
    finally:
        await redis.aclose()
