"""What can be seen of a process from outside: its log, its traces and its metrics."""

import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from contracts.line_writer import LineWriter
from contracts.logs import configure_logs
from ilvr.tracing import exporting_traces


@contextmanager
def telemetry(process: str) -> Iterator[CollectorRegistry]:
    """Logs and traces of a gateway, runner or serve process while the block runs; its registry, with what it is.

    Raises ``BadSettings``.
    """
    writer = configure_logs(process)
    with exporting_traces(process):
        yield make_registry(process, writer)


def make_registry(process: str, log_writer: LineWriter) -> CollectorRegistry:
    """A registry that knows memory, processor time and version of this process."""
    # Else there is a second series beside each counter and histogram, which nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    about = Info("ilvr_build", "What runs here.", registry=registry)
    about.info({"version": version("ilvr"), "python": platform.python_version(), "process": process})
    registry.register(_LogLines(log_writer))
    return registry


class _LogLines(Collector):
    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "ilvr_log_lines_dropped",
            "Lines of the log that could not be written: disk full, pipe closed, or a reader too slow.",
            value=self._writer.num_dropped,
        )
