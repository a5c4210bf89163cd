"""``ilvr train stage1|stage2``: ILVR's two stages on any base model and data, on one process or many."""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import IlvrError, InvalidRequest

if TYPE_CHECKING:
    from training.recipes import StageRecipe
    from training.run_log import Metrics

STAGES = ("stage1", "stage2")
DESCRIPTION = """\
Train a Qwen2.5-VL with ILVR's recipe: stage 1 aligns latents with features of helper images, stage 2 trains end to end
through latents that are fed back.

Every checkpoint in OUT/checkpoints can be served at once, and holds what --resume goes on from. Metrics are in
OUT/metrics.jsonl and OUT/tensorboard.

examples:
  ilvr train stage1 --config comt_7b_released --model Qwen2.5-VL-7B-Instruct --data comt/TRAIN.jsonl --out run1
  ilvr train stage2 --config comt_7b_released --model run1/checkpoints/step-00001000 --data comt/TRAIN.jsonl --out run2
  ilvr train stage1 --config mine.toml --model BASE --data FILE --out run3 --resume     go on after a stop
  ilvr train stage1 --config comt_7b_released --dry-run --gpus 8       names, shapes and memory; no weights, no data
  ilvr serve --model run2/checkpoints/step-00001000

on several GPUs (training/accelerate/ has a commented file for FSDP2, DeepSpeed ZeRO-3 and two CPU processes):
  accelerate launch --config_file training/accelerate/fsdp2.yaml -m ilvr train stage1 --config comt_7b_paper ...

A recipe file (TOML or JSON) changes values of a named recipe:
  base = "comt_7b_released"
  epochs = 3
  lora = true
"""


def add_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    """Arguments of ``ilvr train stage1`` or ``stage2``."""
    parser.set_defaults(stage=stage)
    add = parser.add_argument
    add("--config", required=True, metavar="NAME_OR_FILE", help="a named recipe, or a .toml or .json file")
    add("--model", type=Path, metavar="DIR", help="folder of the base model: Qwen2.5-VL, or a stage before")
    add(
        "--data",
        type=Path,
        metavar="FILE",
        help="samples, one JSON object a line; 'ilvr data check FILE' looks at them",
    )
    add("--images", type=Path, metavar="DIR", help="where relative picture paths start (default: FILE's folder)")
    add("--out", type=Path, metavar="DIR", help="folder of the run, made if missing")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out, if there is one")
    add("--cache", type=Path, metavar="DIR", help="folder for a frozen teacher's targets, which runs may share")
    add("--stop-after", type=int, metavar="STEP", help="save and end after this optimizer step of the recipe")
    add("--workers", type=int, default=2, metavar="N", help="processes that encode samples ahead (default 2)")
    add(
        "--dry-run", action="store_true", help="check the published layout and estimate memory, without weights or data"
    )
    add("--gpus", type=int, default=8, metavar="N", help="GPUs that --dry-run plans for (default 8)")


def run(args: argparse.Namespace) -> int:
    """Train; progress goes to stderr, the last checkpoint's folder to stdout.

    Raises:
        InvalidRequest: an argument is missing or impossible.
        BadSettings, BadCheckpoint: recipe or base model cannot be used.
    """
    from training.recipe_files import load_recipe

    recipe = load_recipe(args.config, args.stage)
    if args.dry_run:
        return _dry_run(recipe, args.gpus)
    missing = [f"--{name}" for name in ("model", "data", "out") if getattr(args, name) is None]
    if missing:
        raise InvalidRequest(f"{' and '.join(missing)} must be given, or --dry-run")
    if args.stop_after is not None and args.stop_after < 1:
        raise InvalidRequest("--stop-after must be at least 1", param="stop_after")
    if args.workers < 0:
        raise InvalidRequest("--workers must not be negative", param="workers")
    try:
        from training.run import Run
        from training.trainer import train
    except ModuleNotFoundError as error:
        raise InvalidRequest(f"training needs {error.name}: install the 'train' extra of ilvr") from error

    wanted = Run(
        recipe=recipe,
        model=args.model,
        data=args.data,
        out=args.out,
        image_root=args.images,
        cache=args.cache,
        resume=args.resume,
        stop_after=args.stop_after,
        num_workers=args.workers,
        created_by=_created_by(args),
    )
    with _Bar() as bar:
        latest = train(wanted, bar)
    if bar.was_used:
        print(f"serve it with: ilvr serve --model {latest}")
    return 0


def _dry_run(recipe: "StageRecipe", num_gpus: int) -> int:
    if num_gpus < 1:
        raise InvalidRequest("--gpus must be at least 1", param="gpus")
    from training.dry_run import dry_run

    print(dry_run(recipe, num_gpus))
    return 0


def _created_by(args: argparse.Namespace) -> dict[str, Any]:
    """What a manifest says of how the checkpoint was made. Names of folders and files, never whole paths."""
    from importlib.metadata import version

    made: dict[str, Any] = {
        "command": f"ilvr train {args.stage} --config {shlex.quote(Path(args.config).name)}",
        "base": args.model.resolve().name,
        "data": args.data.name,
        "packages": {name: version(name) for name in ("ilvr", "torch", "transformers", "accelerate", "peft")},
    }
    commit = _git_commit()
    return {**made, "git_commit": commit} if commit else made


def _git_commit() -> str | None:
    """Of the sources that run, with ``+`` if they were changed; None outside of a repository or without git."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=40",
        "--exclude=*",
        "--dirty=+",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


class _Bar:
    """Progress on stderr. Only the main process of several reports, and so only it draws."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
        self._task: Any = None
        self._what = ""
        self.was_used = False

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:  # a bar that was never drawn would leave an empty line
            self._bar.stop()

    def note(self, text: str) -> None:
        self.was_used = True
        self._bar.console.print(text, highlight=False, markup=False)

    def targets(self, done: int, total: int) -> None:
        self._show("targets", f"targets of {total} samples", done, total)

    def step(self, metrics: "Metrics") -> None:
        self._show("steps", f"epoch {metrics.epoch + 1} loss {metrics.loss:.3f}", metrics.step, metrics.num_steps)

    def _show(self, what: str, description: str, done: int, total: int) -> None:
        if what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._bar.start()
            self._task, self._what, self.was_used = self._bar.add_task(description, total=total), what, True
        self._bar.update(self._task, description=description, completed=done)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m ilvr.commands.train_stages stage1 …``: the same by itself."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(metavar="STAGE", required=True)
    for stage in STAGES:
        add_arguments(stages.add_parser(stage), stage)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except IlvrError as error:
        print(f"ilvr train: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
