"""Token buckets, one for each owner who has spent lately."""

import math
from collections.abc import Callable

from contracts.errors import RateLimited
from contracts.jobs import RateLimit

SECONDS_PER_MINUTE = 60.0


class TokenBuckets:
    """A bucket that is full again is forgotten, so they are as many as there are owners who asked lately."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def spend(self, owner: str, limit: RateLimit, count: int) -> None:
        """Raises ``RateLimited``: there are not so many tokens; nothing was taken."""
        token_s = SECONDS_PER_MINUTE / limit.per_minute  # in which one comes back
        now_s = self._clock()
        full_at = max(self._full_at.get(owner, now_s), now_s) + count * token_s
        over_s = full_at - now_s - limit.burst * token_s
        # A token that comes back within a rounding error of its time is there.
        if over_s > token_s * 1e-9:
            raise RateLimited(
                f"This key may ask {limit.per_minute:g} times a minute, {limit.burst} of them at once.",
                retry_after_s=max(math.ceil(over_s), 1),
            )
        self._full_at[owner] = full_at

    def forget_full(self) -> None:
        now_s = self._clock()
        self._full_at = {owner: full_at for owner, full_at in self._full_at.items() if full_at > now_s}
