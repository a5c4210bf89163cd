"""``ilvr train``: the grid models that train on a CPU, and below it the two stages on any model and data."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import InvalidRequest
from ilvr.commands import train_stages

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar

    from training.grids.train import Progress

DESCRIPTION = """\
Train a checkpoint. Without a stage: one of the small grid models, whose data is made as it trains. With stage1 or
stage2: ILVR's recipe on your model and data, see 'ilvr train stage1 --help'.

maze_tiny makes a model like the one that `ilvr serve` serves by default: a Qwen2.5-VL of one million parameters that
finds safe paths through mazes. It first learns to answer directly, then to think in latents that are aligned with
helper images (stage 1), then more and more in latents of its own, at last end to end through them (stage 2). It takes
one CPU core for less than half an hour; the same recipe and seed take the same steps anywhere. A run that was stopped
goes on where it was.

examples:
  ilvr train --config maze_tiny --out my-maze                        the whole recipe
  ilvr train --config maze_tiny --out my-maze --minutes-scale 0.02   the whole schedule in less than a minute
  ilvr serve --model my-maze                                         serve it
  ilvr train stage1 --config comt_7b_released --model Qwen2.5-VL-7B-Instruct --data comt/TRAIN.jsonl --out run1
"""


# Of an unfinished run, in the folder of the checkpoint to be.
STATE_FILE = "training-state.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr train``, and of its stages."""
    stages = parser.add_subparsers(dest="stage", metavar="[stage1 | stage2]")
    for stage in train_stages.STAGES:
        summary = {"stage1": "latents aligned with helper images", "stage2": "end to end through own latents"}[stage]
        sub = stages.add_parser(
            stage,
            help=summary,
            description=train_stages.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        train_stages.add_arguments(sub, stage)
        sub.set_defaults(run_stage=train_stages.run)
    parser.add_argument("--config", metavar="NAME", help="the recipe: maze_tiny")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the checkpoint, made if missing")
    parser.add_argument("--seed", type=int, default=0, help="decides first weights and every batch (default 0)")
    parser.add_argument(
        "--minutes-scale",
        type=float,
        default=1.0,
        metavar="X",
        help="scale the steps of every phase, and so the minutes, by X (default 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Train and write the checkpoint; progress goes to stderr.

    Raises:
        InvalidRequest: no such recipe, a scale that is not positive, or a folder that cannot be written.
    """
    if args.stage is not None:
        status: int = args.run_stage(args)
        return status
    missing = [f"--{name}" for name in ("config", "out") if getattr(args, name) is None]
    if missing:
        raise InvalidRequest(f"{' and '.join(missing)} must be given; 'ilvr train --help' has examples")
    if not 0 < args.minutes_scale < math.inf:  # no number at all compares as false
        raise InvalidRequest(
            f"--minutes-scale must be a number greater than 0, not {args.minutes_scale:g}", param="minutes_scale"
        )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"cannot make the folder {args.out}: {error.strerror}", param="out") from error
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InvalidRequest("training needs PyTorch: install the 'cpu' or 'cuda' extra of ilvr") from error

    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    from training.checkpoint import export
    from training.configs import RECIPES
    from training.grids.train import scaled, train

    if args.config not in RECIPES:
        raise InvalidRequest(f"no recipe {args.config!r}; there is: {', '.join(sorted(RECIPES))}", param="config")
    recipe = scaled(RECIPES[args.config](), args.minutes_scale)
    # One core: at this size more threads cost more than they bring, and sums in another order give other weights.
    torch.set_num_threads(1)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    console = Console(stderr=True)
    with ProgressBar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("starting", total=None)
        state_file = args.out / STATE_FILE
        grid_run = train(recipe, args.seed, lambda progress: _show(bar, task, progress), state_file=state_file)
    command = f"ilvr train --config {args.config} --seed {args.seed}"
    if args.minutes_scale != 1:
        command += f" --minutes-scale {args.minutes_scale:g}"
    created_by = {
        "command": command,
        "recipe": recipe.name,
        "seed": args.seed,
        "steps": recipe.num_steps,
        "minutes": round(grid_run.cpu_s / 60, 1),
        "torch": torch.__version__,
    }
    export(grid_run, args.out, created_by)
    state_file.unlink(missing_ok=True)
    print(f"wrote {args.out} after {grid_run.cpu_s / 60:.1f} minutes of one core", file=sys.stderr)
    print(f"serve it with: ilvr serve --model {args.out}")
    return 0


def _show(bar: "ProgressBar", task: int, progress: "Progress") -> None:
    """One step on the bar; scores, when there are any, as a line above it."""
    from rich.progress import TaskID

    description = f"{progress.phase} loss {progress.loss:.3f}"
    bar.update(TaskID(task), total=progress.num_steps, completed=progress.step, description=description)
    for task_name, scores in progress.scores.items():
        sizes = "  ".join(f"{n}x{n} {100 * score.success:.0f} %" for n, score in scores.items())
        full = min(score.full_block for score in scores.values())
        bar.console.print(
            f"step {progress.step} ({progress.phase}, {progress.cpu_s:.0f} s): unseen {task_name}s {sizes}; "
            f"full latent block {100 * full:.0f} %"
        )
