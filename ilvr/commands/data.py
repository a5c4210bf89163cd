"""``ilvr data``: make the data of our own tasks, and look at any data before training on it. Imports no torch."""

import argparse
import re
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import mazes
from contracts.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.progress import Progress

    from training.balanced import Balanced, OnDraw
    from training.data_summary import Summary
    from training.dataset_folder import NewSample

SPLITS: tuple[mazes.Split, ...] = ("train", "test")
MAX_PROBLEMS = 20

DESCRIPTION = """\
Make data to train on, and look at data before training on it. Files are in the released form of ILVR: one JSON object
a line with text_input, image_input, sequence_plan and original_final_answer (docs/data.md).

examples:
  ilvr data maze --out mazes --train 4000 --test 800          mazes of 3x3 to 6x6 with the path as helper image
  ilvr data trail --out trails --train 4000 --test 800        follow the arrows; which flag is the end?
  ilvr data check mazes/train.jsonl --sheet sheet.png         read it all, count, and show 12 samples
  ilvr data check TRAIN.jsonl --images comt                   the same for data of others
"""
MAZE = """\
Write mazes as DIR/train.jsonl, DIR/test.jsonl and DIR/images/.

Training and test mazes are disjoint by content: a hash of the grid decides. Sizes are equally frequent, and so are path
lengths within a size, as far as there are enough; what is short is said. The same arguments write the same files.
"""
TRAIL = """\
Write trails as DIR/train.jsonl, DIR/test.jsonl and DIR/images/.

A trail is a grid of arrows with a start, the flag that the arrows lead to, and other flags. The question is where the
trail ends, the answer the name of that cell. Splits, balance and seed are as for mazes.
"""
CHECK = """\
Read every row of FILE, open every picture, and print what it holds. The exit status is 1 if anything is wrong; the
first 20 problems are listed with file, line and field.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr data`` and its three commands."""
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    plain = argparse.RawDescriptionHelpFormatter
    maze = commands.add_parser("maze", help="write mazes", description=MAZE, formatter_class=plain)
    trail = commands.add_parser("trail", help="write trails of arrows", description=TRAIL, formatter_class=plain)
    for sub in (maze, trail):
        sub.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new or empty folder")
        sub.add_argument("--train", type=int, default=4000, metavar="N", help="training samples (default 4000)")
        sub.add_argument("--test", type=int, default=800, metavar="N", help="test samples (default 800)")
        sub.add_argument("--sizes", default="3-6", metavar="RANGE", help="such as 3-6, 4 or 3,5 (default 3-6)")
        sub.add_argument("--seed", type=int, default=0, metavar="S", help="which samples (default 0)")
    maze.add_argument(
        "--lengths",
        choices=("even", "drawn"),
        default="even",
        help="even: each path length as often (default); drawn: as they come by lot, most of them short",
    )
    check = commands.add_parser("check", help="read a file and count", description=CHECK, formatter_class=plain)
    check.add_argument("file", type=Path, metavar="FILE", help="JSONL in the released form")
    check.add_argument("--images", type=Path, metavar="ROOT", help="where picture paths start (default: FILE's folder)")
    check.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet of up to 12 samples")


def run(args: argparse.Namespace) -> int:
    """Run one of the three; 1 if ``check`` found problems.

    Raises:
        InvalidRequest: wrong arguments, a folder that is not empty, or a file that cannot be read or written.
    """
    return _check(args) if args.data_command == "check" else _make(args)


def _make(args: argparse.Namespace) -> int:
    from training.dataset_folder import new_folder, write_split

    sizes = _sizes(args.sizes)
    counts = {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    if not counts or min(counts.values()) < 0:
        raise InvalidRequest("--train and --test must be numbers of samples, and not both 0", param="train")
    drawn: dict[str, Balanced[Any]] = {}
    with new_folder(args.out) as folder, _progress() as bar:
        for split, count in counts.items():
            task = bar.add_task(f"{split}: drawing", total=None)

            def show(size: int, done: int, total: int) -> None:
                bar.update(task, description=f"{split}: drawing {size}x{size}", completed=done, total=total)  # noqa: B023

            drawn[split], sample_of = _draw(args, sizes, split, count, show)
            puzzles = drawn[split].puzzles
            bar.update(task, visible=False)
            samples = (sample_of(puzzle) for puzzle in bar.track(puzzles, description=f"{split}: writing"))
            write_split(folder, split, samples)
    for split, count in counts.items():
        _print_balance(args.out / f"{split}.jsonl", drawn[split], count)
    return 0


def _draw(
    args: argparse.Namespace, sizes: list[int], split: mazes.Split, count: int, on_draw: "OnDraw"
) -> "tuple[Balanced[Any], Callable[[Any], NewSample]]":
    """The puzzles of the task that was asked for, and what makes a sample of one."""
    from training import balanced, dataset_folder

    if args.data_command == "trail":
        return balanced.balanced_trails(sizes, split, count, args.seed, on_draw), dataset_folder.trail_sample
    is_even = args.lengths == "even"
    found = balanced.balanced_mazes(sizes, split, count, args.seed, are_lengths_even=is_even, on_draw=on_draw)
    return found, dataset_folder.maze_sample


def _sizes(text: str) -> list[int]:
    """``3-6`` or ``3,5``, as sorted sizes."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d)\s*(?:-\s*(\d)\s*)?", part)
        ends = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not (ends[0] <= ends[1] and ends[0] in mazes.SIZES and ends[1] in mazes.SIZES):
            smallest, largest = mazes.SIZES[0], mazes.SIZES[-1]
            told = (
                f"--sizes must be such as {smallest}-{largest}, 4 or 3,5, within {smallest} to {largest}, not {text!r}"
            )
            raise InvalidRequest(told, param="sizes")
        found.update(range(ends[0], ends[1] + 1))
    return sorted(found)


def _print_balance(file: Path, drawn: "Balanced[Any]", wanted: int) -> None:
    """How many of each size and length, and what could not be balanced."""
    print(f"{file}: {len(drawn.puzzles)} samples")
    for size, total in drawn.taken_of_size.items():
        lengths = [
            f"{length}: {count}{'*' * ((size, length) in drawn.short_lengths)}"
            for (one, length), count in sorted(drawn.taken.items())
            if one == size
        ]
        print(f"  {size}x{size}  {total:5} samples; of path length  {', '.join(lengths)}")
    if drawn.short_lengths:
        print("  * fewer than the even share: all that were found")
    for size in drawn.short_sizes:
        print(f"  not balanced: of {size}x{size} all {drawn.taken_of_size[size]} that were found are taken")
    if len(drawn.puzzles) < wanted:
        print(f"  only {len(drawn.puzzles)} of {wanted} were found")


def _check(args: argparse.Namespace) -> int:
    from training.contact_sheet import contact_sheet
    from training.data_summary import summarise

    with _progress() as bar:
        task = bar.add_task(args.file.name, total=_num_lines(args.file))
        summary = summarise(args.file, args.images, lambda: bar.advance(task))
    _print_summary(args.file, summary)
    for problem in summary.problems[:MAX_PROBLEMS]:
        print(f"  {problem}")
    if len(summary.problems) > MAX_PROBLEMS:
        print(f"  and {len(summary.problems) - MAX_PROBLEMS} more")
    if args.sheet is not None:
        if not summary.sound:
            raise InvalidRequest("there is no sample to show on the sheet", param="sheet")
        try:
            contact_sheet(summary.sound).save(args.sheet, format="PNG")
        except OSError as error:
            raise InvalidRequest(f"cannot write {args.sheet}: {error.strerror or error}", param="sheet") from error
        print(f"wrote {args.sheet}")
    return 1 if summary.problems else 0


def _print_summary(file: Path, summary: "Summary") -> None:
    from training.data_summary import TOP_ANSWERS, spread

    def counts(counter: Counter[Any]) -> str:
        return ", ".join(f"{key}: {count}" for key, count in sorted(counter.items()))

    common = ", ".join(
        f"{textwrap.shorten(answer, 24, placeholder='…')} ({count})"
        for answer, count in summary.answers.most_common(TOP_ANSWERS)
    )
    lines = {
        "samples": f"{summary.num_samples}",
        "by group": counts(summary.groups),
        "pictures a sample": counts(summary.images_per_sample),
        "blocks a sample": counts(summary.blocks_per_sample),
        "helper images": f"{len(summary.helper_tokens)}, visual tokens {spread(summary.helper_tokens)}",
        "target cells": f"in {summary.num_with_targets} samples",
        "map_desc": f"in {summary.num_mazes} samples",
        "answers": f"{len(summary.answers)} different{f'; most frequent {common}' if common else ''}",
        "without answer": f"{summary.num_without_answer}",
        "without steps": f"{summary.num_without_steps}",
        "question length": f"{spread(summary.question_lengths)} characters",
        "said in all": f"{spread(summary.text_lengths)} characters",
        "problems": f"{len(summary.problems)}",
    }
    print(f"{file}   (three numbers are smallest / median / largest)")
    for name, value in lines.items():
        print(f"  {name:18} {value}")


def _num_lines(file: Path) -> int | None:
    """For the length of the bar only; what is wrong with the file is told when it is read."""
    try:
        with file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    except OSError:
        return None


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
