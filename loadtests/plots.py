"""Plots as SVG, to stand in a page that needs no network."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.recorder import OUTCOMES, TITLES

COLOURS = {
    "answered": "#2a7f4f",
    "cancelled": "#8c8c8c",
    "left": "#bdbdbd",
    "refused": "#d9a400",
    "failed": "#c0392b",
    "unfinished": "#6c3483",
}


def outcomes_over_time(rows: Sequence[Mapping[str, Any]]) -> str:
    """What became of the requests, by when they were due."""
    figure, axes = _figure()
    names = [name for name in OUTCOMES if any(row[name] for row in rows)]
    axes.stackplot(
        [row["from_s"] for row in rows],
        *([row[name] for row in rows] for name in names),
        labels=names,
        colors=[COLOURS[name] for name in names],
        step="post",
    )
    axes.set(xlabel="due at, s", ylabel="requests in a window", title="what became of requests")
    axes.legend(loc="upper left", fontsize="small")
    return _svg(figure)


def metric_over_time(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    """Median and p99 in each window in which something was measured."""
    figure, axes = _figure()
    for name in ("p50_s", "p99_s"):
        points = [
            (row["from_s"], row[f"{measure}_{name}"] * 1000) for row in rows if row[f"{measure}_{name}"] is not None
        ]
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name.removesuffix("_s"))
    axes.set(xlabel="due at, s", ylabel="ms", title=f"{TITLES[measure]} over time", ylim=(0, None))
    axes.legend(fontsize="small")
    return _svg(figure)


def distribution(metric: Mapping[str, Any], measure: str) -> str:
    """The share of times that are no longer than so many ms."""
    figure, axes = _figure()
    axes.plot([s * 1000 for s, _ in metric["distribution_s"]], [share for _, share in metric["distribution_s"]])
    axes.set(xscale="log", xlabel="ms", ylabel="share", title=f"{TITLES[measure]}: distribution", ylim=(0, 1.02))
    axes.grid(alpha=0.3, which="both")
    return _svg(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # half a second, which only a report needs

    figure = Figure(figsize=(5.6, 2.8), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue().partition("<svg")[2].join(("<svg", ""))
