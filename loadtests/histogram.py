"""Times, counted in buckets of two per cent, so that processes can add theirs up and quantiles stay exact to that."""

import math
from collections import Counter
from collections.abc import Mapping

GROWTH = 1.02
SMALLEST_S = 1e-5


class Histogram:
    """Seconds. What is below 10 µs counts as that."""

    def __init__(self, buckets: Mapping[int, int] | None = None, total_s: float = 0.0, max_s: float = 0.0) -> None:
        self.buckets = Counter(buckets or {})
        self.total_s = total_s
        self.max_s = max_s

    @property
    def count(self) -> int:
        return self.buckets.total()

    def add(self, seconds: float) -> None:
        bucket = math.ceil(math.log(max(seconds, SMALLEST_S) / SMALLEST_S, GROWTH))
        self.buckets[bucket] += 1
        self.total_s += seconds
        self.max_s = max(self.max_s, seconds)

    def merge(self, other: "Histogram") -> None:
        self.buckets.update(other.buckets)
        self.total_s += other.total_s
        self.max_s = max(self.max_s, other.max_s)

    def quantile(self, share: float) -> float:
        """The upper edge of the bucket that holds it, at most the longest. Raises ``ValueError``: it is empty."""
        if not self.buckets:
            raise ValueError("no time was measured")
        rank = max(math.ceil(share * self.count), 1)
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                break
        return min(SMALLEST_S * GROWTH**bucket, self.max_s)
