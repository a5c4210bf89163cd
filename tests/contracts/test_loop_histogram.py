"""It says the same as the ready-made one, in less time."""

import timeit
from functools import partial

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.registry import Collector

from contracts.loop_histogram import LoopHistogram, LoopHistograms

BOUNDS = (0.001, 0.01, 0.1)
VALUES = (0.0, 0.001, 0.0011, 0.05, 0.1, 7.0)  # bounds are inclusive


def lines(of: Collector) -> list[str]:
    registry = CollectorRegistry()
    registry.register(of)
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_loop_histogram_is_a_histogram() -> None:
    ready_made = Histogram("a_seconds", "What it is.", buckets=BOUNDS, registry=None)
    ours = LoopHistogram("a_seconds", "What it is.", BOUNDS)
    for value in VALUES:
        ready_made.observe(value)
        ours.observe(value)
    assert lines(ours) == lines(ready_made)


def test_with_a_label() -> None:
    ready_made = Histogram("a_seconds", "What it is.", labelnames=["call"], buckets=BOUNDS, registry=None)
    ours = LoopHistograms("a_seconds", "What it is.", BOUNDS, label="call")
    for call, value in zip(("take", "give") * 3, VALUES, strict=True):
        ready_made.labels(call=call).observe(value)
        ours.of(call).observe(value)
    ready_made.labels(call="silent")
    ours.of("silent")
    assert lines(ours) == lines(ready_made)


def test_loop_histogram_is_the_quicker_one() -> None:
    """Why it exists; by a factor of some 5 where nothing else runs."""
    ready_made = Histogram("a_seconds", "What it is.", buckets=BOUNDS, registry=None)
    ours = LoopHistogram("a_seconds", "What it is.", BOUNDS)
    times = [min(timeit.repeat(partial(h.observe, 0.05), number=2000, repeat=9)) for h in (ready_made, ours)]
    assert times[1] < times[0]
