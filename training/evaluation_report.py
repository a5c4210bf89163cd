"""Results as JSON, as Markdown tables and as a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from contracts.errors import InvalidRequest
from training.answer_matching import MatchVersion
from training.evaluation_results import AblationResult, Figures

FORMAT = "ilvr-evaluation/1"
TOTAL = "all"
# Okabe and Ito (2008): told apart by most kinds of colour vision, in this order also in grey.
COLOURS = {"on": "#0072B2", "off": "#E69F00", "zero": "#009E73", "noise": "#CC79A7", "swap": "#D55E00"}
BAR_GROUP_WIDTH = 0.84  # of the room of one group
INCHES_PER_GROUP, LEAST_WIDTH_INCHES, HEIGHT_INCHES = 1.5, 6.0, 4.0
CHART_DPI = 150


class Report(Struct, frozen=True, kw_only=True):
    """``run``: what was asked of what. ``context``: with which command, versions and machine."""

    format: str = FORMAT
    run: dict[str, str | int | None]
    match: MatchVersion
    context: dict[str, Any]
    results: list[AblationResult]


def write_report(folder: Path, report: Report) -> None:
    """``results.json``, ``results.md`` and ``results.png`` in the folder. Raises ``InvalidRequest``."""
    try:
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
        (folder / "results.json").write_bytes(encoded + b"\n")
        (folder / "results.md").write_text(markdown(report), encoding="utf-8")
        draw_chart(report, folder / "results.png")
    except OSError as error:
        raise InvalidRequest(f"cannot write to {folder}: {error.strerror or error}", param="out") from error


def markdown(report: Report) -> str:
    """Two tables, accuracy and cost, in percent and seconds, and what they were measured with."""
    return "\n".join(
        [
            f"{_sentence(report)}",
            "",
            *_accuracy_table(report.results),
            "",
            *_cost_table(report.results),
            "",
            *(f"- {name}: {value}" for name, value in report.context.items()),
            "",
        ]
    )


def _sentence(report: Report) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in report.run.items() if value is not None)
    return f"Success in percent with its 95 % interval (Wilson), answers matched as in {report.match}: {facts}."


def _accuracy_table(results: Sequence[AblationResult]) -> list[str]:
    first = results[0]
    columns = {TOTAL: first.total, **first.groups}
    header = [f"{name} ({figures.num_samples})" for name, figures in columns.items()]
    rows = [
        [result.ablation, *(_share_with_interval(one) for one in (result.total, *result.groups.values()))]
        for result in results
    ]
    return _table(["latents", *header], rows)


def _cost_table(results: Sequence[AblationResult]) -> list[str]:
    header = [
        "latents",
        "answers changed from on %",
        "latency mean s",
        "median s",
        "95th percentile s",
        "tokens",
        "of them latents",
        "cut",
        "not asked",
    ]
    rows = []
    for result in results:
        total = result.total
        rows.append(
            [
                result.ablation,
                "–" if total.changed is None or result.ablation == "on" else f"{100 * total.changed:.1f}",
                f"{total.latency_mean_s:.3f}",
                f"{total.latency_p50_s:.3f}",
                f"{total.latency_p95_s:.3f}",
                f"{total.output_tokens_mean:.1f}",
                f"{total.latents_mean:.1f}",
                str(total.num_cut),
                str(total.num_errors),
            ]
        )
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    # A name of a group may hold what would end its cell.
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _share_with_interval(figures: Figures) -> str:
    low, high = (100 * bound for bound in figures.interval_95)
    return f"{100 * figures.accuracy:.1f} ({low:.1f}–{high:.1f})"


def draw_chart(report: Report, path: Path) -> None:
    """A bar for each ablation, side by side in all and in each group, with intervals. PNG."""
    # Here, because the package is an extra; and without pyplot, which keeps figures of its own for the whole process.
    from matplotlib.figure import Figure

    results = report.results
    names = [TOTAL, *results[0].groups]
    width = max(LEAST_WIDTH_INCHES, INCHES_PER_GROUP * len(names))
    figure = Figure(figsize=(width, HEIGHT_INCHES), dpi=CHART_DPI, layout="constrained")
    axes = figure.add_subplot()
    bar_width = BAR_GROUP_WIDTH / len(results)
    for number, result in enumerate(results):
        columns: Mapping[str, Figures] = {TOTAL: result.total, **result.groups}
        left = [place - BAR_GROUP_WIDTH / 2 + bar_width * number for place in range(len(names))]
        shares = [100 * columns[name].accuracy for name in names]
        bounds = [[100 * bound for bound in columns[name].interval_95] for name in names]
        below = [max(0.0, share - low) for share, (low, _) in zip(shares, bounds, strict=True)]
        above = [max(0.0, high - share) for share, (_, high) in zip(shares, bounds, strict=True)]
        axes.bar(
            left,
            shares,
            width=0.94 * bar_width,
            align="edge",
            label=result.ablation,
            color=COLOURS[result.ablation],
            yerr=(below, above),
            error_kw={"elinewidth": 0.8, "capsize": 2},
        )
    # Names of groups, models and files are no formulas, whatever they hold.
    axes.set_xticks(range(len(names)), [f"{name}\n{_count(results[0], name)}" for name in names], parse_math=False)
    axes.set_ylim(0, 102)  # room for the cap of an interval that ends at 100
    axes.set_ylabel("success %, with 95 % interval")
    axes.set_title(f"{report.run.get('model')} on {report.run.get('data')}", fontsize="medium", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(title="latents", loc="outside right upper", frameon=False)
    figure.savefig(path, format="png")


def _count(result: AblationResult, name: str) -> str:
    figures = result.total if name == TOTAL else result.groups[name]
    return f"n = {figures.num_samples}"
