"""The rows of the roof beside the throughput that was measured last, whenever the roof itself was."""

import statistics
from typing import Any

from benchmarks.decode.figures import spread


def rows_of(roof: dict[str, Any], throughput: dict[str, Any]) -> list[list[str]]:
    """Both are ``raw`` of their parts; of (a) as far as it was measured."""
    return [
        _row(name, batch, rates, throughput.get(name, {}).get("ours", {}).get(batch, []))
        for name, found in roof.items()
        for batch, rates in found.items()
    ]


def _row(name: str, batch: str, rates: list[float], ours: list[float]) -> list[str]:
    if not ours:
        return [name, batch, spread(rates), "not measured", ""]
    return [name, batch, spread(rates), spread(ours), f"{100 * statistics.median(ours) / statistics.median(rates):.0f}"]
