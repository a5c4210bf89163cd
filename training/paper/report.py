"""The tables and curves of ``training/PAPER.md`` from the result files: ``python -m training.paper.report``.

Rewrites what stands between the two markers of PAPER.md, and the pictures beside it. A cell without a result file is
left out, and counted.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from contracts.errors import BadSettings
from training.answer_log import Ablation
from training.paper.cells import cells
from training.paper.run import RESULTS, is_made

PAPER = Path(__file__).parents[1] / "PAPER.md"
BEGIN, END = "<!-- results: python -m training.paper.report -->", "<!-- end of results -->"
SIZES = ("3", "4", "5", "6")
METHODS = {
    "direct": "direct answer",
    "chain": "text chain of thought",
    "stage1": "stage 1, published selection, EMA",
    "stage12": "stage 1 + 2, published selection, EMA",
    "ordered": "path selection",
    "control": "control: all of that but the order",
    "released": "stage 1 + 2, frozen teacher (as released)",
}

Result = Mapping[str, Any]


def load(results: Path) -> dict[str, Result]:
    """Result files by the name of their cell."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))}


def mean_and_spread(values: Sequence[float]) -> str:
    """``97.4`` of one value, ``97.4 ± 0.8`` of several: mean and sample standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def task_tables(task: str, found: Mapping[str, Result]) -> str:
    """Success by method and size, and below it by what is fed back."""
    lines = [f"### {task.capitalize()}s", "", _head("method", "seeds", "CPU s", *(f"{n}x{n}" for n in SIZES))]
    groups = list(_groups(task, found))
    for title, results in groups:
        seconds = mean_and_spread([result["cpu_s"] for result in results])
        scores = [mean_and_spread([result["scores"]["on"][size] for result in results]) for size in SIZES]
        lines.append(_row(title, str(len(results)), seconds, *scores))
    lines += ["", "What the latents carry: success with other vectors fed back.", ""]
    lines.append(_head("method", "latents", "whole block", *(f"{n}x{n}" for n in SIZES)))
    for title, results in groups:
        if not any(result["scores"]["on"]["full_block"] for result in results):
            continue
        for latents in get_args(Ablation):
            by_seed = [result["scores"][latents] for result in results]
            row = [mean_and_spread([score[key] for score in by_seed]) for key in ("full_block", *SIZES)]
            lines.append(_row(title, latents, *row))
    return "\n".join(lines)


def draw_curves(task: str, found: Mapping[str, Result], file: Path) -> None:
    """Success on the watched 5x5 puzzles over steps, a line for each cell."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for index, (title, results) in enumerate(_groups(task, found)):
        for number, result in enumerate(results):
            watched = [entry for entry in result["curve"] if entry["success"]]
            xs = [entry["step"] for entry in watched]
            ys = [entry["success"]["5"] for entry in watched]
            label = title if number == 0 else None
            axes.plot(xs, ys, color=f"C{index % 10}", label=label, alpha=0.8, marker=".", linewidth=1.2)
    axes.set(xlabel="optimizer step", ylabel="success on unseen 5x5, %", ylim=(0, 102), title=f"{task}s")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Write tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--paper", type=Path, default=PAPER, help="file to rewrite")
    args = parser.parse_args(argv)
    found = load(args.results)
    wanted = cells()
    try:
        missing = [cell.name for cell in wanted if not is_made(cell, args.results)]
    except BadSettings as error:
        print(error, file=sys.stderr)
        return 1
    parts = [f"{len(wanted) - len(missing)} of {len(wanted)} cells are made."]
    if missing:
        parts.append(f"Missing: {', '.join(missing)}.")
    for task in ("maze", "trail"):
        if any(name.startswith(task) for name in found):
            picture = args.paper.parent / "curves" / f"{task}.png"
            picture.parent.mkdir(exist_ok=True)
            draw_curves(task, found, picture)
            parts += [task_tables(task, found), f"![success on watched 5x5 {task}s over steps](curves/{task}.png)"]
    text = args.paper.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    args.paper.write_text(before + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + after, encoding="utf-8")
    return 0


def _groups(task: str, found: Mapping[str, Result]) -> Iterable[tuple[str, list[Result]]]:
    """Results of the seeds of each method, then the single ones."""
    for method, title in METHODS.items():
        results = [result for name, result in found.items() if name.startswith(f"{task}-{method}-seed")]
        if results:
            yield title, results
    for name, result in found.items():
        if name.startswith(f"{task}-ordered-k"):
            yield f"{METHODS['ordered']}, K = {result['latent_size']}", [result]


def _head(*names: str) -> str:
    return _row(*names) + "\n" + "| --- " * len(names) + "|"


def _row(*values: str) -> str:
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    sys.exit(main())
