"""Puzzles drawn so that sizes, and within a size path lengths, are equally frequent, as far as there are enough.

By lot a maze's path is short: of 6x6 mazes about one in two thousand has 16 steps. A model trained on lots learns short
paths, and a test of lots hardly asks for long ones. So more are drawn than wanted, and each length gives an even share.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from contracts import mazes, trails
from contracts.mazes import Maze, Rows, Split
from contracts.trails import Trail

# Drawn for each one wanted. Most lengths of mazes are rare, and twice as many draws find hardly more of them; a trail's
# length is chosen, so that a few spare ones make up for those that came twice.
MAZE_DRAWS, TRAIL_DRAWS, MIN_DRAWS = 20, 2, 500
# Nothing is left to find when so many draws in a row were seen before.
PATIENCE = 2000


class Puzzle(Protocol):
    @property
    def rows(self) -> Rows: ...

    @property
    def size(self) -> int: ...


P = TypeVar("P", bound=Puzzle)
OnDraw = Callable[[int, int, int], None]  # told size, puzzles drawn, and puzzles to draw


@dataclass(frozen=True, slots=True)
class Balanced(Generic[P]):
    """Distinct puzzles in an order by lot, and how many of each size and length were found and taken."""

    puzzles: Sequence[P]
    found: Mapping[tuple[int, int], int]
    taken: Mapping[tuple[int, int], int]
    are_lengths_even: bool

    @property
    def taken_of_size(self) -> dict[int, int]:
        sizes = sorted({size for size, _ in self.found})
        return {size: sum(count for (one, _), count in self.taken.items() if one == size) for size in sizes}

    @property
    def short_sizes(self) -> list[int]:
        """Sizes of which all that were found were taken, and still fewer than of another size."""
        found = {size: sum(count for (one, _), count in self.found.items() if one == size) for size, _ in self.found}
        taken = self.taken_of_size
        return [size for size, count in taken.items() if count == found[size] and count < max(taken.values())]

    @property
    def short_lengths(self) -> set[tuple[int, int]]:
        """Sizes and lengths likewise, within their size, if lengths were to be even."""
        if not self.are_lengths_even:
            return set()
        most = {size: max(count for (one, _), count in self.taken.items() if one == size) for size, _ in self.taken}
        return {key for key, count in self.taken.items() if count == self.found[key] and count < most[key[0]]}


def even_shares(available: Mapping[int, int], count: int) -> dict[int, int]:
    """``count`` split over the keys as evenly as what is available allows; the sum is less only if all is used up.

    What does not come out even goes to the smallest keys.
    """
    shares = dict.fromkeys(sorted(available), 0)
    while left := min(count, sum(available.values())) - sum(shares.values()):
        unfilled = [key for key, share in shares.items() if share < available[key]]
        step = left // len(unfilled)
        for key in unfilled if step else unfilled[:left]:
            shares[key] += min(max(step, 1), available[key] - shares[key])
    return shares


def balanced_mazes(
    sizes: Sequence[int],
    split: Split,
    count: int,
    seed: int,
    *,
    are_lengths_even: bool = True,
    on_draw: OnDraw = lambda size, done, total: None,
) -> Balanced[Maze]:
    """Mazes of a split, balanced by size and, unless told otherwise, by the length of the shortest path.

    Of 3x3 all that exist are looked at. With lengths as they come by lot, these are the first of ``mazes.distinct``.
    """
    rng = random.Random(f"balanced:maze:{split}:{seed}")
    wanted = -(-count // len(sizes))
    pools: dict[int, list[Maze]] = {}
    for size in sizes:
        if not are_lengths_even:
            pools[size] = mazes.distinct(size, split, count, seed)
        elif size == mazes.SIZES[0]:
            every = [maze for maze in mazes.every_maze(size) if mazes.is_test_split(maze.rows) == (split == "test")]
            pools[size] = _shuffled(rng, every)
        else:
            draw = partial(mazes.draw_lot, rng, size, split)
            pools[size] = _distinct(draw, max(MIN_DRAWS, wanted * MAZE_DRAWS), partial(on_draw, size))
    return _balance(pools, lambda maze: len(maze.solution), rng, count, are_lengths_even)


def balanced_trails(
    sizes: Sequence[int], split: Split, count: int, seed: int, on_draw: OnDraw = lambda size, done, total: None
) -> Balanced[Trail]:
    """Trails of a split, balanced by size and length."""
    rng = random.Random(f"balanced:trail:{split}:{seed}")
    wanted = -(-count // len(sizes))
    pools: dict[int, list[Trail]] = {}
    for size in sizes:
        draw = partial(trails.draw_lot, rng, size, split)
        pools[size] = _distinct(draw, max(MIN_DRAWS, wanted * TRAIL_DRAWS), partial(on_draw, size))
    return _balance(pools, lambda trail: trail.length, rng, count, True)


def _balance(
    pools: Mapping[int, Sequence[P]],
    length_of: Callable[[P], int],
    rng: random.Random,
    count: int,
    are_lengths_even: bool,
) -> Balanced[P]:
    """The first of each pool, as many as the even shares of sizes and lengths are."""
    found = Counter((puzzle.size, length_of(puzzle)) for pool in pools.values() for puzzle in pool)
    chosen: list[P] = []
    for size, share in even_shares({size: len(pool) for size, pool in pools.items()}, count).items():
        groups: dict[int, list[P]] = defaultdict(list)
        for puzzle in pools[size]:
            groups[length_of(puzzle) if are_lengths_even else 0].append(puzzle)
        lengths = even_shares({length: len(group) for length, group in groups.items()}, share)
        chosen += [puzzle for length in lengths for puzzle in groups[length][: lengths[length]]]
    taken = Counter((puzzle.size, length_of(puzzle)) for puzzle in chosen)
    return Balanced(_shuffled(rng, chosen), found, taken, are_lengths_even)


def _distinct(draw: Callable[[], P], num_draws: int, on_draw: Callable[[int, int], None]) -> list[P]:
    seen: dict[Rows, P] = {}
    num_in_vain = 0
    for number in range(1, num_draws + 1):
        puzzle = draw()
        num_in_vain = num_in_vain + 1 if puzzle.rows in seen else 0
        seen.setdefault(puzzle.rows, puzzle)
        on_draw(number, num_draws)
        if num_in_vain == PATIENCE:
            break
    return list(seen.values())


def _shuffled(rng: random.Random, items: Sequence[P]) -> list[P]:
    """In an order by lot that is the same in every version of Python."""
    return sorted(items, key=lambda _: rng.random())
