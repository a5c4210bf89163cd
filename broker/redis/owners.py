"""What Redis keeps of an owner: idempotency keys, and the bucket of the rate limit."""

import math
from dataclasses import dataclass

from broker.redis.keys import Keys
from broker.redis.link import Link
from contracts.errors import RateLimited
from contracts.jobs import Idempotency, RateLimit

MS = 1000
MINUTE_MS = 60 * MS


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody else's: the response that a key stands for, and since when."""

    response_id: str
    age_s: float
    is_same_body: bool


class Owners:
    """Raises ``BrokerUnavailable`` everywhere."""

    def __init__(self, link: Link, keys: Keys, *, ttl_s: float) -> None:
        self._link = link
        self._keys = keys
        self._ttl_ms = int(ttl_s * MS)

    async def claim(self, owner: str, idempotency: Idempotency, response_id: str) -> Claim | None:
        """Let the key stand for this response. Returns the claim that was there before, ``None`` if there was none."""
        keys = self._keys.claim(owner, idempotency.key)
        answer = await self._link.run("claim", keys, response_id, idempotency.body_sha256, self._ttl_ms)
        if answer[0] == b"mine":
            return None
        return Claim(answer[1].decode(), answer[2] / MS, bool(answer[3]))

    async def unclaim(self, owner: str, key: str, response_id: str) -> None:
        """If it stands for this response."""
        await self._link.run("unclaim", self._keys.claim(owner, key), response_id)

    async def keep(self, owner: str, key: str, response_id: str, for_s: float | None = None) -> None:
        """For as long as the response, if it stands for it."""
        ttl_ms = self._ttl_ms if for_s is None else int(for_s * MS)
        await self._link.run("keep_claim", self._keys.claim(owner, key), response_id, ttl_ms)

    async def claimed(self, owner: str, key: str) -> str | None:
        """The response that it stands for."""
        found = await self._link.run("claimed", self._keys.claim(owner, key))
        return None if found is None else str(found.decode())

    async def spend(self, owner: str, limit: RateLimit, count: int) -> None:
        """Raises ``RateLimited``."""
        token_ms = MINUTE_MS / limit.per_minute
        over_ms = await self._link.run("spend", self._keys.bucket(owner), token_ms, limit.burst, count)
        if over_ms:
            raise RateLimited(
                f"This key may ask {limit.per_minute:g} times a minute, {limit.burst} of them at once.",
                retry_after_s=max(math.ceil(over_ms / MS), 1),
            )
