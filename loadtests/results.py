"""What was recorded, as the numbers that are read: ``results.json`` and two tables as CSV."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.arrivals import due_times_s
from loadtests.histogram import Histogram
from loadtests.profile import Profile
from loadtests.recorder import ALL, OUTCOMES, TITLES, Recorder

QUANTILES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99}


def summary(profile: Profile, recorder: Recorder) -> dict[str, Any]:
    """Seconds throughout. ``metrics.NAME`` holds the numbers of all requests and, under ``by_kind``, of each kind.

    A share is of the requests that were begun. ``load.begun_share`` is of those that were due, in an open loop.
    """
    outcomes = Counter[str]()
    kinds: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(recorder.outcomes.items()):
        outcomes[outcome] += count
        kinds.setdefault(kind, {})[outcome] = count
    num_begun = sum(count for (name, _), count in recorder.outcomes_at.items() if name == "begun")
    num_due = sum(1 for _ in due_times_s(profile)) if profile.loop == "open" else num_begun
    return {
        "load": {
            "num_due": num_due,
            "num_begun": num_begun,
            "begun_share": num_begun / num_due if num_due else 0.0,
            "repeated_picture_share": recorder.num_repeated / num_begun if num_begun else 0.0,
            "duration_s": profile.duration_s,
        },
        "requests": {
            **{name: outcomes[name] for name in OUTCOMES},
            **{f"{name}_share": outcomes[name] / num_begun if num_begun else 1.0 for name in OUTCOMES},
            "by_kind": kinds,
            "reasons": dict(recorder.reasons.most_common(20)),
        },
        "metrics": {name: _metric(recorder, name) for name in TITLES if (name, ALL) in recorder.times},
        "over_time": _over_time(recorder),
    }


def _metric(recorder: Recorder, measure: str) -> dict[str, Any]:
    kinds = {kind: times for (name, kind), times in sorted(recorder.times.items()) if name == measure and kind != ALL}
    total = recorder.times[measure, ALL]
    return {
        **_numbers(total),
        "distribution_s": [[round(total.quantile(share / 100), 6), share / 100] for share in range(1, 101)],
        "by_kind": {kind: _numbers(times) for kind, times in kinds.items()},
    }


def _numbers(times: Histogram) -> dict[str, float]:
    return {
        "count": times.count,
        "mean_s": round(times.total_s / times.count, 6),
        **{name: round(times.quantile(share), 6) for name, share in QUANTILES.items()},
        "max_s": round(times.max_s, 6),
    }


def _over_time(recorder: Recorder) -> list[dict[str, Any]]:
    """A row for each window of due times."""
    windows = [window for _, window in recorder.outcomes_at]
    rows = []
    for window in range(max(windows, default=-1) + 1):
        row: dict[str, Any] = {"from_s": round(window * recorder.window_s, 3)}
        row |= {name: recorder.outcomes_at[name, window] for name in ("begun", *OUTCOMES)}
        for measure in TITLES:
            times = recorder.times_at.get((measure, window))
            row |= {
                f"{measure}_{name}": round(times.quantile(QUANTILES[name]), 6) if times else None for name in QUANTILES
            }
        rows.append(row)
    return rows


def write_csv(results: Mapping[str, Any], folder: Path) -> None:
    """``metrics.csv``: a row for each measure and kind. ``over_time.csv``: a row for each window."""
    rows = [
        {"metric": name, "kind": kind, **numbers}
        for name, metric in results["metrics"].items()
        for kind, numbers in ((ALL, _scalars(metric)), *metric["by_kind"].items())
    ]
    for name, table in (("metrics.csv", rows), ("over_time.csv", results["over_time"])):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(table[0]) if table else [])
            writer.writeheader()
            writer.writerows(table)


def _scalars(metric: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metric.items() if not isinstance(value, list | dict)}
