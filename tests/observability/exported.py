"""Every metric that our processes export, by starting their registries; vLLM's by starting its logger."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Metric

from broker.embedded import EmbeddedBroker
from broker.measured import measured
from contracts.line_writer import LineWriter
from ilvr.telemetry import make_registry
from model_runner.metrics import RunnerMetrics
from service.metrics import GatewayMetrics
from tests.servers import ROOT

# Of a histogram's samples, or of an info's.
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
TARGET_LABELS = frozenset({"job", "instance"})  # Prometheus adds them


@dataclass(frozen=True)
class Exported:
    """``name`` is that in the exposition: of a counter with ``_total``, of a histogram without a suffix."""

    name: str
    kind: str
    labels: frozenset[str]
    documentation: str

    @property
    def samples(self) -> set[str]:
        if self.kind == "counter":
            return {self.name}
        return {self.name.removesuffix("_info") + suffix for suffix in SUFFIXES[self.kind]}


def our_metrics() -> dict[str, Exported]:
    """Of gateway, runner, broker and process. A runner shows vLLM's beside them, if this process has loaded it."""
    writer = LineWriter(2)
    try:
        registry = make_registry("test", writer)
        GatewayMetrics(registry)
        RunnerMetrics(registry)
        measured(EmbeddedBroker(), registry, max_waiting=1)
        return {name: one for name, one in _of(registry).items() if not name.startswith("vllm:")}
    finally:
        writer.close()


def vllm_metrics() -> dict[str, Exported]:
    """Of the engine that serves the embedded model, without starting it. In a process of its own, which forgets it."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.observability.exported"],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert told.returncode == 0, told.stderr
    rows = json.loads(told.stdout.splitlines()[-1])
    return {name: Exported(name, kind, frozenset(labels), text) for name, kind, labels, text in rows}


def main() -> None:
    from model_runner.checkpoint import read_checkpoint
    from model_runner.engine.vllm_arguments import engine_arguments
    from model_runner.environment import set_environment
    from model_runner.settings import RunnerSettings
    from tests.model_runner.folders import MAZE_TINY

    set_environment()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    arguments = engine_arguments(
        RunnerSettings(model=MAZE_TINY), read_checkpoint(MAZE_TINY, is_cpu=True), is_cpu=True, uses_v2=False
    )
    logger = PrometheusStatLogger(AsyncEngineArgs(**arguments).create_engine_config())
    logger.log_engine_initialized()
    found = [one for name, one in _of(REGISTRY).items() if name.startswith("vllm:")]
    print(json.dumps([(one.name, one.kind, sorted(one.labels), one.documentation) for one in found]))


def _of(registry: CollectorRegistry) -> dict[str, Exported]:
    found = {}
    for collector in list(registry._collector_to_names):
        labels = getattr(collector, "_labelnames", ())
        for metric in collector.collect():
            name = {"counter": f"{metric.name}_total", "info": f"{metric.name}_info"}.get(metric.type, metric.name)
            of_samples = _labels_of(metric)
            found[name] = Exported(name, metric.type, frozenset({*labels, *of_samples}), metric.documentation)
    return found


def _labels_of(metric: Metric) -> Iterable[str]:
    return {label for sample in metric.samples for label in sample.labels} - {"le"}


if __name__ == "__main__":
    main()
