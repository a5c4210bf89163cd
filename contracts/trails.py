"""Trails: a second visual task of our own, whose answer is one letter and one digit that only following gives.

A trail picture is a grid of arrows. One of them is the start; following the arrows from it leads, cell by cell, to a
flag. Other flags lie about as decoys, and every other cell carries an arrow too. The question is where the trail ends,
the answer that cell's name (``c4``): two characters, so nothing of the way there can be worked out while answering.

Rows hold ``U D L R`` for arrows, the same in lower case for the arrow of the start, and ``F`` for flags. Standard
library only; pictures are in ``contracts.trail_pictures``.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from contracts.mazes import MOVES, Cell, Rows, Split, is_test_split

T = TypeVar("T")

FLAG = "F"
QUESTION = "Where does the trail end?"

# All that decides what is drawn.
SIZES = range(3, 7)
MIN_LENGTH, MAX_LENGTH = 2, 7  # steps from the start to the flag; with the start that is 8 cells, one for each latent
MIN_DECOYS = 2  # flags besides the end; at most as many as the grid has rows

COLUMN_NAMES = "abcdef"


@dataclass(frozen=True, slots=True)
class Trail:
    """A grid and the cells from its start to the flag where the trail ends."""

    rows: Rows
    cells: tuple[Cell, ...]

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def length(self) -> int:
        """Steps from the start to the flag."""
        return len(self.cells) - 1

    @property
    def answer(self) -> str:
        """The name of the cell where the trail ends."""
        return cell_name(self.cells[-1])


def cell_name(cell: Cell) -> str:
    """Column letter from the left, then row number from the top: ``a1`` is the corner at the top left."""
    return f"{COLUMN_NAMES[cell[1]]}{cell[0] + 1}"


def follow(rows: Sequence[str]) -> tuple[Cell, ...]:
    """The cells from the start to the flag that the arrows lead to, both included.

    Raises: ValueError if there is no start, or the arrows leave the grid or go in a circle.
    """
    starts = [(row, column) for row, line in enumerate(rows) for column, kind in enumerate(line) if kind in "udlr"]
    if len(starts) != 1:
        raise ValueError(f"a trail has one start, not {len(starts)}")
    cells = starts
    while (kind := rows[cells[-1][0]][cells[-1][1]]) != FLAG:
        there = _neighbour(cells[-1], kind.upper())
        if there in cells or not _is_inside(there, len(rows)):
            raise ValueError("the trail leads to no flag")
        cells.append(there)
    return tuple(cells)


def lengths(size: int) -> range:
    """The lengths that trails of a size have: the longest leaves room for the other flags and an arrow to each."""
    return range(MIN_LENGTH, min(MAX_LENGTH, size * size - 1 - 2 * MIN_DECOYS) + 1)


def draw_lot(rng: random.Random, size: int, split: Split, length: int | None = None) -> Trail:
    """The next trail of a split; of any length, each equally often, unless one is given.

    The walk goes to a free neighbour by lot and begins anew when there is none. Then come 2 to n other flags, then an
    arrow for each cell left, at least one of them into each flag: otherwise the flag that arrows point at would often
    be the right one. Uses ``rng.random()`` alone, the one method whose sequence Python promises to keep.
    """
    length = _pick(rng, lengths(size)) if length is None else length
    everywhere = [(row, column) for row in range(size) for column in range(size)]
    while True:
        cells = _walk(rng, size, length, _pick(rng, everywhere))
        if cells is None:
            continue
        free = [cell for cell in everywhere if cell not in cells]
        most = min(size, len(free) // 2)
        flags = [free.pop(int(rng.random() * len(free))) for _ in range(_pick(rng, range(MIN_DECOYS, most + 1)))]
        kinds = {cell: _pick(rng, _moves_inside(cell, size)) for cell in free}
        for flag in flags:
            beside = [cell for cell in free if flag in _neighbours(cell)]
            if beside and not _is_pointed_at(flag, kinds):
                cell = _pick(rng, beside)
                kinds[cell] = _move(cell, flag)
        if not all(_is_pointed_at(flag, kinds) for flag in flags):
            continue
        kinds |= {here: _move(here, there) for here, there in itertools.pairwise(cells)}
        kinds |= {cells[0]: kinds[cells[0]].lower()} | dict.fromkeys([cells[-1], *flags], FLAG)
        rows = tuple("".join(kinds[row, column] for column in range(size)) for row in range(size))
        if is_test_split(rows) == (split == "test"):
            return Trail(rows, cells)


def generate(size: int, seed: int, split: Split = "test") -> Trail:
    """The trail of a size, seed and split: the same on every machine."""
    if size not in SIZES:
        raise ValueError(f"size must be {SIZES[0]} to {SIZES[-1]}, not {size}")
    return draw_lot(random.Random(f"trail:{size}:{split}:{seed}"), size, split)


def _walk(rng: random.Random, size: int, length: int, start: Cell) -> tuple[Cell, ...] | None:
    """Distinct cells of a walk by lot, or None if it ran into a dead end."""
    cells = [start]
    for _ in range(length):
        ways = [_neighbour(cells[-1], move) for move in _moves_inside(cells[-1], size)]
        ways = [cell for cell in ways if cell not in cells]
        if not ways:
            return None
        cells.append(_pick(rng, ways))
    return tuple(cells)


def _neighbour(cell: Cell, move: str) -> Cell:
    return cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]


def _neighbours(cell: Cell) -> list[Cell]:
    return [_neighbour(cell, move) for move in MOVES]


def _is_pointed_at(flag: Cell, kinds: Mapping[Cell, str]) -> bool:
    return any(_neighbour(cell, kind) == flag for cell, kind in kinds.items())


def _is_inside(cell: Cell, size: int) -> bool:
    return 0 <= cell[0] < size and 0 <= cell[1] < size


def _moves_inside(cell: Cell, size: int) -> list[str]:
    return [move for move in MOVES if _is_inside(_neighbour(cell, move), size)]


def _move(here: Cell, there: Cell) -> str:
    return next(move for move in MOVES if _neighbour(here, move) == there)


def _pick(rng: random.Random, choices: Sequence[T]) -> T:
    return choices[int(rng.random() * len(choices))]
