"""What guessing gives: rules that look at the picture, but do not work the answer out.

    python -m benchmarks.guessing

A model has to be well above these before it can be said to follow a trail, or to see the holes of a maze.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from contracts.mazes import Cell, distinct, run_path, step, straight_path
from contracts.trails import FLAG, SIZES, Trail, generate


def flags(trail: Trail) -> list[Cell]:
    """All cells that hold a flag, the end among them."""
    return [(row, column) for row, line in enumerate(trail.rows) for column, kind in enumerate(line) if kind == FLAG]


def any_flag(trail: Trail) -> list[Cell]:
    """Every flag is as good as another."""
    return flags(trail)


def nearest_flag(trail: Trail) -> list[Cell]:
    """The flags with the fewest steps from the start, were there no arrows."""
    row, column = trail.cells[0]
    distance = {flag: abs(flag[0] - row) + abs(flag[1] - column) for flag in flags(trail)}
    return [flag for flag in distance if distance[flag] == min(distance.values())]


def most_pointed_at(trail: Trail) -> list[Cell]:
    """The flags that most arrows point at."""
    arrows = Counter(
        step(trail.rows, (row, column), kind.upper())
        for row, line in enumerate(trail.rows)
        for column, kind in enumerate(line)
        if kind != FLAG
    )
    found = flags(trail)
    return [flag for flag in found if arrows[flag] == max(arrows[each] for each in found)]


RULES: dict[str, Callable[[Trail], list[Cell]]] = {
    "any flag": any_flag,
    "the flag nearest to S": nearest_flag,
    "the flag that most arrows point at": most_pointed_at,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table: the expected success of each rule in percent, ties broken by lot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="unseen puzzles of each size (default %(default)s)")
    args = parser.parse_args(argv)
    print("| rule | " + " | ".join(f"{size}x{size}" for size in SIZES) + " |")
    print("| --- " * (len(SIZES) + 1) + "|")
    for title, rule in RULES.items():
        successes = []
        for size in SIZES:
            trails = [generate(size, seed) for seed in range(args.count)]
            guesses = [(trail, rule(trail)) for trail in trails]
            successes.append(sum((trail.cells[-1] in guess) / len(guess) for trail, guess in guesses) / args.count)
        print(_row(f"trails: {title}", successes))
    mazes = [distinct(size, "test", args.count) for size in SIZES]
    straight = [sum(run_path(each.rows, straight_path(each.rows)) for each in some) / len(some) for some in mazes]
    print(_row("mazes: straight to the goal, through all holes", straight))
    return 0


def _row(title: str, successes: Sequence[float]) -> str:
    return f"| {title} | " + " | ".join(f"{100 * success:.1f}" for success in successes) + " |"


if __name__ == "__main__":
    sys.exit(main())
