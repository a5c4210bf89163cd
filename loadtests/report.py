"""``report.html``: objectives, counts, times and their plots on one page without scripts."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from loadtests.check_slo import Verdict
from loadtests.plots import distribution, metric_over_time, outcomes_over_time
from loadtests.recorder import OUTCOMES, TITLES

STYLE = """\
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
td,th{padding:.2rem .8rem;border-bottom:1px solid #ccc;text-align:right}
td:first-child,th:first-child{text-align:left}.BROKEN,.MISSING{color:#c0392b;font-weight:bold}
.plots{display:flex;flex-wrap:wrap}svg{max-width:100%;height:auto}pre{background:#8881;padding:.8rem;overflow-x:auto}"""
NUMBERS = ("p50_s", "p90_s", "p99_s", "max_s", "mean_s")


def page(results: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    load, rows = results["load"], results["over_time"]
    profile = "\n".join(f"{name} = {value}" for name, value in results["profile"].items())
    parts = [
        f"<p>{escape(results['host'])}, {escape(results['began_at'])}: {load['num_begun']} of {load['num_due']}"
        f" requests that were due were begun in {load['duration_s']:g} s;"
        f" {load['repeated_picture_share']:.0%} with a repeated picture. Times are from when a request was due.</p>",
        "<h2>Objectives</h2>",
        _table(("number", "objective", "is", ""), [_verdict(verdict) for verdict in verdicts]),
        "<h2>Requests</h2>",
        _table(("kind", *OUTCOMES), _counts(results["requests"]["by_kind"])),
        *(f"<p>{count} × {escape(reason)}</p>" for reason, count in results["requests"]["reasons"].items()),
        "<h2>Times, in ms</h2>",
        _table(("", "kind", "count", *(name.removesuffix("_s") for name in NUMBERS)), _times(results["metrics"])),
        "<h2>Plots</h2><div class=plots>",
        outcomes_over_time(rows) if rows else "",
        *(metric_over_time(rows, name) + distribution(metric, name) for name, metric in results["metrics"].items()),
        f"</div><h2>Profile</h2><pre>{escape(profile)}</pre>",
    ]
    title = "Load on ILVR"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        + ("\n".join(parts))
    )


def _verdict(verdict: Verdict) -> list[str]:
    value = "-" if verdict.value is None else f"{verdict.value:.4g}"
    return [
        escape(verdict.path),
        escape(str(verdict.bounds)),
        value,
        f"<span class={verdict.word}>{verdict.word}</span>",
    ]


def _counts(kinds: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    return [[escape(kind), *(str(counts.get(name, 0)) for name in OUTCOMES)] for kind, counts in kinds.items()]


def _times(metrics: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    return [
        [TITLES[name], kind, str(numbers["count"]), *(f"{numbers[number] * 1000:.1f}" for number in NUMBERS)]
        for name, metric in metrics.items()
        for kind, numbers in (("all", metric), *metric["by_kind"].items())
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return "<table><tr>" + "".join(f"<th>{name}" for name in head) + body + "</table>"
