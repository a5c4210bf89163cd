"""A Prometheus histogram for what is observed at every event."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class LoopHistogram(Collector):
    """Without locks: a fifth of the time of the ready-made one.

    Observe in one thread, here the event loop's; a scrape in another reads counts that are at most one step apart.
    """

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._series = LoopSeries(buckets)
        self.observe = self._series.observe

    def collect(self) -> Iterable[Metric]:
        buckets, total = self._series.read()
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=total)


class LoopHistograms(Collector):
    """The same with one label, whose values are all known before the first scrape."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float], label: str) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = tuple(buckets)
        self._series: dict[str, LoopSeries] = {}

    def of(self, value: str) -> "LoopSeries":
        return self._series.setdefault(value, LoopSeries(self._bounds))

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, series in self._series.items():
            buckets, total = series.read()
            family.add_metric([value], buckets, total)
        yield family


class LoopSeries:
    """Counts by bucket; the last is of what is above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """By bound how many were not above it; and the sum."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), tuple(self._counts), strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._sum
