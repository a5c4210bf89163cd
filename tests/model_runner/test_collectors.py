"""What the engine counts, and what vLLM does."""

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

from model_runner.collectors import EngineCounters, VllmMetrics


def text(collector_or_registry: object) -> str:
    registry = CollectorRegistry()
    registry.register(collector_or_registry)
    return generate_latest(registry).decode()


def test_engine_counters() -> None:
    counters = EngineCounters({"hits": "Hits.", "misses": "Misses."})
    counters.set({"hits": 3})
    assert "ilvr_runner_hits_total 3.0" in text(counters)
    assert "ilvr_runner_misses_total 0.0" in text(counters)
    with pytest.raises(KeyError):
        counters.set({"unheard_of": 1})


def test_vllms_metrics_and_no_others() -> None:
    theirs = Counter("vllm:tests", "Of this test.")
    other = Counter("not_theirs", "Of this test.")
    try:
        theirs.inc(2)
        assert "vllm:tests_total 2.0" in text(VllmMetrics())
        assert "not_theirs" not in text(VllmMetrics())
    finally:
        REGISTRY.unregister(theirs)
        REGISTRY.unregister(other)
