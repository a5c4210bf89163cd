"""Prometheus collectors for what the ready-made ones are too strict for."""

from collections.abc import Iterable, Mapping

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class EngineCounters(Collector):
    """Counts that the engine keeps itself, as it told them last. They begin anew with a new engine process."""

    def __init__(self, documentation_by_name: Mapping[str, str]) -> None:
        self._documentation_by_name = documentation_by_name
        self._counts: dict[str, int] = {}

    def set(self, counts: Mapping[str, int]) -> None:
        """Raises ``KeyError`` for a count that has no description."""
        self._counts = {name: counts[name] for name in counts if self._documentation_by_name[name]}

    def collect(self) -> Iterable[Metric]:
        for name, documentation in self._documentation_by_name.items():
            yield CounterMetricFamily(f"ilvr_runner_{name}", documentation, value=self._counts.get(name, 0))


class VllmMetrics(Collector):
    """What vLLM exports of itself. It registers in the library's global registry, whatever registry a process has."""

    def collect(self) -> Iterable[Metric]:
        return [metric for metric in REGISTRY.collect() if metric.name.startswith("vllm:")]

    def describe(self) -> Iterable[Metric]:
        return []  # unknown until the engine has started
