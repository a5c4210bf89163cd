"""Make cells: train from the trunk, evaluate with every ablation, write the result. Everything resumable.

python -m training.paper.run                     all that are missing, one after the other
python -m training.paper.run --only 'trail-*'    some of them; several processes may share a folder
"""

import argparse
import fcntl
import fnmatch
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from contracts.errors import BadSettings
from training.answer_log import Ablation
from training.grids.free_running import scores_by_size
from training.grids.state import GridRun
from training.grids.train import Progress, train
from training.paper.cells import Cell, cells

RESULTS = Path(__file__).parent / "results"
STATES = Path("paper-states")
PER_SIZE = 500
CURVE_EVERY_STEPS = 10


def make_trunk(cell: Cell, states: Path) -> None:
    """Train the first steps, which the cells of a trunk share, unless that is done."""
    trunk = states / f"{cell.trunk}.pt"
    if not trunk.exists():
        part = states / f"{cell.trunk}.run.pt"
        train(cell.recipe, cell.seed, _printer(cell.trunk, []), state_file=part, until_step=cell.fork_step)
        part.replace(trunk)


def make_cell(cell: Cell, states: Path, results: Path, per_size: int) -> None:
    """Train a cell on from its trunk, evaluate it and write its result file."""
    results.mkdir(parents=True, exist_ok=True)
    log = states / f"{cell.name}.jsonl"
    curve: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with log.open("a", buffering=1) as appended:  # line by line: the state must not be ahead of the log
        run = train(
            cell.recipe,
            cell.seed,
            _printer(cell.name, curve, appended.write),
            state_file=states / f"{cell.name}.pt",
            start_from=states / f"{cell.trunk}.pt",
        )
    by_step = {entry["step"]: entry for entry in curve if entry["step"] <= run.step}
    result = {
        "cell": cell.name,
        "command": f"python -m training.paper.run --only {cell.name}",
        "seed": cell.seed,
        "latent_size": cell.recipe.latent_size,
        "recipe": recipe_as_json(cell),
        "steps": run.step,
        "cpu_s": round(run.cpu_s, 1),
        "per_size": per_size,
        "scores": evaluate(run, per_size),
        "curve": [by_step[step] for step in sorted(by_step)],
        "torch": torch.__version__,
    }
    part = results / f".{cell.name}.{os.getpid()}"
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(results / f"{cell.name}.json")


def recipe_as_json(cell: Cell) -> Any:
    """The whole recipe of a cell, as its result file holds it."""
    return json.loads(json.dumps(asdict(cell.recipe)))


def is_made(cell: Cell, results: Path) -> bool:
    """Whether there is a result of this cell.

    Raises:
        BadSettings: the one that there is was made with another recipe.
    """
    file = results / f"{cell.name}.json"
    if not file.exists():
        return False
    if json.loads(file.read_text(encoding="utf-8")).get("recipe") != recipe_as_json(cell):
        raise BadSettings(f"{file} was made with another recipe than it would be now; delete it to make it anew")
    return True


def evaluate(run: GridRun, per_size: int) -> dict[str, Any]:
    """Success in percent by ablation and size, and the least share of answers with a whole block."""
    (task,) = run.batches.tasks.values()
    found: dict[str, Any] = {}
    for latents in get_args(Ablation):
        scores = scores_by_size(run.model, run.batches, task, run.recipe.latent_size, per_size, latents=latents)
        found[latents] = {str(size): round(100 * score.success, 2) for size, score in scores.items()}
        found[latents]["full_block"] = round(100 * min(score.full_block for score in scores.values()), 2)
        if latents == "on" and found["on"]["full_block"] == 0 and not any(s.full_block for s in scores.values()):
            # No answer opens a block, so there is nothing to replace: the ablations are the same answers.
            return {each: found["on"] for each in get_args(Ablation)}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Make what is missing, in order; a cell that another process makes is left to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells whose name matches (default: all)")
    parser.add_argument("--states", type=Path, default=STATES, help="unfinished runs (default %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--per-size", type=int, default=PER_SIZE, help="puzzles a size; 3x3 mazes have 408")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.states.mkdir(parents=True, exist_ok=True)
    try:
        make([cell for cell in cells() if fnmatch.fnmatch(cell.name, args.only)], args)
    except BadSettings as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make(wanted: Sequence[Cell], args: argparse.Namespace) -> None:
    """Make what is missing of these."""
    for cell in wanted:
        if is_made(cell, args.results):
            continue
        with _lock(args.states / f"{cell.trunk}.lock", wait=True):
            make_trunk(cell, args.states)
        with _lock(args.states / f"{cell.name}.lock", wait=False) as is_mine:
            if not is_mine:
                print(f"{cell.name}: another process makes it", file=sys.stderr)
            elif not is_made(cell, args.results):
                make_cell(cell, args.states, args.results, args.per_size)


@contextmanager
def _lock(file: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the lock was got; the system frees it when the process ends, however it ends."""
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _printer(name: str, curve: list[dict[str, Any]], write: Any = None) -> Any:
    def report(progress: Progress) -> None:
        if progress.step % CURVE_EVERY_STEPS and not progress.scores:
            return
        (scores,) = progress.scores.values() if progress.scores else ({},)
        entry = {
            "step": progress.step,
            "phase": progress.phase,
            "loss": round(progress.loss, 4),
            "cpu_s": round(progress.cpu_s, 1),
            "success": {str(size): round(100 * score.success, 1) for size, score in scores.items()},
        }
        curve.append(entry)
        if write is not None:
            write(json.dumps(entry) + "\n")
        if progress.scores:
            print(name, json.dumps(entry), file=sys.stderr, flush=True)

    return report


if __name__ == "__main__":
    sys.exit(main())
