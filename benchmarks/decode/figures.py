"""What is made of measured numbers: medians with their range, ratios, verdicts, and a table. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and range: ``12.0 (11.0–14.0)``."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Of pairs that were measured one after the other."""
    return [one / other for one, other in zip(over, under, strict=True)]


def interval_of_median(values: Sequence[float]) -> tuple[float, float] | None:
    """In which the median of all that could have been measured lies, in 95 of 100 cases; None of fewer than 6 values.

    By order statistics: that it lies below the lowest k of n is as likely as at most k - 1 heads in n throws of a coin.
    """
    n, ordered = len(values), sorted(values)
    below, tail = -1, 0.0
    while (tail := tail + math.comb(n, below + 1) / 2**n) <= 0.025:
        below += 1
    return (ordered[below], ordered[n - 1 - below]) if below >= 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What the project asks of itself. ``values`` are of the repetitions; their median counts."""

    what: str
    values: list[float]
    limit: float
    kind: Literal["at least", "at most"]

    @property
    def is_met(self) -> bool:
        value = statistics.median(self.values)
        return value >= self.limit if self.kind == "at least" else value <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        interval = interval_of_median(self.values)
        if interval is not None and interval[0] < self.limit < interval[1]:
            verdict += f", but the median is only known to lie between {interval[0]:.2f} and {interval[1]:.2f}"
        return f"{self.what}: {spread(self.values, 2)}, {self.kind} {self.limit:g} was asked: {verdict}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """One part of the report. ``rows`` are cells as printed; ``raw`` are the numbers that they were made of."""

    key: str
    title: str
    text: str
    header: list[str]
    rows: list[list[str]]
    bars: list[Bar] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self)
        content["bars"] = [asdict(bar) | {"is_met": bar.is_met} for bar in self.bars]
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "PartReport":
        bars = [Bar(**{name: value for name, value in bar.items() if name != "is_met"}) for bar in content["bars"]]
        return cls(**{**content, "bars": bars})

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", self.text, "", table(self.header, self.rows), ""]
        lines += [f"* {bar}" for bar in self.bars]
        return "\n".join(lines).rstrip() + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def decode_intervals(steps: Sequence[tuple[float, int, int]], batch: int) -> list[float]:
    """Seconds from the begin of each step in which ``batch`` requests decode a token each to that of the next such."""
    seconds = []
    for (begin_s, *size), (end_s, *next_size) in pairwise(steps):
        if size == next_size == [batch, batch]:
            seconds.append(end_s - begin_s)
    return seconds
