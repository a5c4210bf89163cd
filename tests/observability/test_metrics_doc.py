"""docs/metrics.md and what is exported say the same, both ways."""

import re

from tests.observability.exported import Exported
from tests.servers import ROOT

ROW = re.compile(r"^\| `([a-z0-9_:]+)` \| (\w+) \| ([^|]*) \| (.+) \|$", re.MULTILINE)
OF_EVERY_VLLM_METRIC = {"model_name", "engine"}


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = ROW.findall((ROOT / "docs" / "metrics.md").read_text())
    assert len(rows) == len({name for name, *_ in rows})
    return {name: (kind, frozenset(filter(None, labels.split(", ")))) for name, kind, labels, _ in rows}


def test_every_metric_is_documented_and_every_documented_one_is_exported(
    ours: dict[str, Exported], theirs: dict[str, Exported]
) -> None:
    exported = {name: (metric.kind, metric.labels) for name, metric in ours.items()}
    exported |= {name: (metric.kind, metric.labels - OF_EVERY_VLLM_METRIC) for name, metric in theirs.items()}
    assert documented() == exported


def test_names_follow_the_convention(ours: dict[str, Exported]) -> None:
    """Prometheus' own: a prefix for who exports it, base units, and no count but in a counter."""
    for name, metric in ours.items():
        assert name.startswith(("ilvr_gateway_", "ilvr_runner_", "ilvr_broker_", "ilvr_", "process_", "python_"))
        assert (metric.kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(ms|millis|kb|mib|minutes|percent)(_|$)", name)
        assert metric.documentation
