"""Mazes as a grid task: the answer is the path, as moves."""

import random
from collections.abc import Hashable, Sequence

from PIL import Image

from contracts import mazes
from contracts.maze_pictures import path_exits, tile
from contracts.mazes import FREE, GOAL, HOLE, MOVES, START, Maze, Split, best_moves, path_cells
from contracts.trails import cell_name
from training.batch import IGNORED_LABEL
from training.grids.tasks import Puzzle
from training.maze_text import THOUGHT, draw_question

# No shortest path through a 6x6 grid passes more cells.
MAX_PATH_CELLS = 36
# K of the released ILVR settings, so that no latent of a block is without its target.
NUM_TARGETS = 8


class MazeTask:
    """VSP mazes of 3x3 to 6x6.

    Cells are classified by the best move from them and by the step at which the solution is in them, if at all. A few
    move letters a maze are too thin a signal for so small a tower to learn to see from.
    """

    name = "maze"
    sizes: Sequence[int] = mazes.SIZES
    question = mazes.QUESTION
    thought = THOUGHT
    num_classes: Sequence[int] = (len(MOVES), MAX_PATH_CELLS + 1)

    def draw(self, rng: random.Random, size: int, split: Split) -> Puzzle:
        return puzzle_of(mazes.draw_lot(rng, size, split))

    def test_puzzles(self, size: int, count: int, seed: int = 0) -> list[Puzzle]:
        return [puzzle_of(maze) for maze in mazes.distinct(size, "test", count, seed)]

    def draw_question(self, rng: random.Random) -> str:
        return draw_question(rng)

    def is_right(self, puzzle: Puzzle, answer: str) -> bool:
        return mazes.run_path(puzzle.rows, answer)

    def tile_keys(self) -> list[Hashable]:
        sides = "DLRU"
        exits = ["", *sides, *(a + b for a in sides for b in sides if a < b)]
        return [(HOLE, "")] + [(kind, each) for kind in (FREE, START, GOAL) for each in exits]

    def tile(self, key: Hashable) -> Image.Image:
        return tile(*key)  # type: ignore[misc]


def puzzle_of(maze: Maze) -> Puzzle:
    """The puzzle of a maze. Targets: the path's cells, the start first; the goal repeats to fill a block of 8."""
    cells = path_cells(maze.rows, maze.solution)
    exits = path_exits(maze.rows, maze.solution)
    best, names = best_moves(maze.rows), list(MOVES)
    every = [(row, column) for row in range(maze.size) for column in range(maze.size)]
    on_path = {cell: index + 1 for index, cell in enumerate(cells)}
    passed = [row * maze.size + column for row, column in cells]
    return Puzzle(
        rows=maze.rows,
        tiles=[(maze.rows[row][column], "") for row, column in every],
        helper_tiles=[(maze.rows[row][column], exits.get((row, column), "")) for row, column in every],
        answer=maze.solution,
        chain=" ".join(cell_name(cell) for cell in cells),
        target_cells=tuple(passed + passed[-1:] * (NUM_TARGETS - len(passed))),
        cell_labels=(
            [names.index(best[cell]) if cell in best else IGNORED_LABEL for cell in every],
            [on_path.get(cell, 0) for cell in every],
        ),
    )
