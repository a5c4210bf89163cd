"""Trails as a grid task: the answer is one cell's name, so that the way there has to be worked out before it."""

import random
from collections.abc import Hashable, Sequence

from PIL import Image

from contracts import trails
from contracts.mazes import Rows, Split
from contracts.trail_pictures import tile, trail_exits
from contracts.trails import FLAG, Trail, cell_name
from training.grids.tasks import Puzzle
from training.trail_text import THOUGHT

KINDS = "RDLUrdlu" + FLAG


class TrailTask:
    """Trails of 3x3 to 6x6, 2 to 7 steps long.

    Cells are classified by what they hold, by row and by column: by what is seen, not by where the trail goes.
    """

    name = "trail"
    sizes: Sequence[int] = trails.SIZES
    question = trails.QUESTION
    thought = THOUGHT
    num_classes: Sequence[int] = (len(KINDS), max(trails.SIZES), max(trails.SIZES))

    def draw(self, rng: random.Random, size: int, split: Split) -> Puzzle:
        return puzzle_of(trails.draw_lot(rng, size, split))

    def test_puzzles(self, size: int, count: int, seed: int = 0) -> list[Puzzle]:
        rng = random.Random(f"distinct:trail:{size}:{seed}")
        found: dict[Rows, Trail] = {}
        while len(found) < count:
            trail = trails.draw_lot(rng, size, "test")
            found.setdefault(trail.rows, trail)
        return [puzzle_of(trail) for trail in found.values()]

    def draw_question(self, rng: random.Random) -> str:
        return self.question

    def is_right(self, puzzle: Puzzle, answer: str) -> bool:
        return answer == puzzle.answer

    def tile_keys(self) -> list[Hashable]:
        sides = "DLRU"
        exits = ["", *sides, *(a + b for a in sides for b in sides if a < b)]
        keys: list[Hashable] = [(kind, each, False) for kind in KINDS for each in exits]
        return keys + [(FLAG, side, True) for side in sides]

    def tile(self, key: Hashable) -> Image.Image:
        return tile(*key)  # type: ignore[misc]


def puzzle_of(trail: Trail) -> Puzzle:
    """The puzzle of a trail. Targets: the cells of the trail, the start first; the last repeats to fill a block."""
    exits = trail_exits(trail.rows, trail.cells)
    every = [(row, column) for row in range(trail.size) for column in range(trail.size)]
    passed = [row * trail.size + column for row, column in trail.cells]
    last = trail.cells[-1]
    return Puzzle(
        rows=trail.rows,
        tiles=[(trail.rows[row][column], "", False) for row, column in every],
        helper_tiles=[
            (trail.rows[row][column], exits.get((row, column), ""), (row, column) == last) for row, column in every
        ],
        answer=trail.answer,
        chain=" ".join(cell_name(cell) for cell in trail.cells),
        target_cells=tuple(passed + passed[-1:] * (trails.MAX_LENGTH + 1 - len(passed))),
        cell_labels=(
            [KINDS.index(trail.rows[row][column]) for row, column in every],
            [row for row, _ in every],
            [column for _, column in every],
        ),
    )
