"""What training and evaluation ask of a grid task; ``mazes`` and ``trails`` are the two there are."""

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from contracts.mazes import Rows, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """One puzzle, its picture as tiles and what should be said about it.

    tiles, helper_tiles: key of each cell's tile, row by row, in the picture and in its helper image.
    answer: content of the answer box. chain: the words of a text-only chain of thought.
    target_cells: visual tokens of the helper image in the order in which the latents should stand for them.
    cell_labels: for each classifier of cells its label of each cell.
    """

    rows: Rows
    tiles: Sequence[Hashable]
    helper_tiles: Sequence[Hashable]
    answer: str
    chain: str
    target_cells: tuple[int, ...]
    cell_labels: Sequence[Sequence[int]]

    @property
    def size(self) -> int:
        return len(self.rows)


class GridTask(Protocol):
    """A kind of puzzle. ``num_classes``: of each classifier of cells, the auxiliary loss of this project."""

    name: str
    sizes: Sequence[int]
    question: str
    thought: str
    num_classes: Sequence[int]

    def draw(self, rng: random.Random, size: int, split: Split) -> Puzzle:
        """The next puzzle by lot."""

    def test_puzzles(self, size: int, count: int, seed: int = 0) -> list[Puzzle]:
        """Distinct unseen puzzles in a fixed order, or all that there are."""

    def draw_question(self, rng: random.Random) -> str:
        """A wording by lot."""

    def is_right(self, puzzle: Puzzle, answer: str) -> bool:
        """Whether the content of an answer box solves the puzzle."""

    def tile_keys(self) -> list[Hashable]:
        """Every tile that a picture can have."""

    def tile(self, key: Hashable) -> Image.Image:
        """The 28 x 28 picture of a tile."""
