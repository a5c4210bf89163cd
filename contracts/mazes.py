"""Mazes: what they are, how they are drawn by lot, solved, walked and split into training and test.

A maze is n rows of n characters: ``S`` start, ``G`` goal, ``H`` hole, ``.`` free. The task is that of VSP (Wu et al.
2024, "VSP: Assessing the dual challenges of perception and reasoning in spatial planning tasks for VLMs"), which ILVR
(arXiv 2512.05665) is evaluated on: a walk succeeds if it ends on the goal and enters no hole.

Standard library only; pictures are in ``contracts.maze_pictures``.
"""

import hashlib
import itertools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

START, GOAL, HOLE, FREE = "S", "G", "H", "."
QUESTION = "Find a safe path from S to G."

SIZES = range(3, 7)
MIN_HOLE_DENSITY, MAX_HOLE_DENSITY = 0.10, 0.45
# One maze in eight is kept for tests: 408 of the 3,332 that exist at 3x3.
TEST_MODULUS = 8

# (row, column) step of each move. The order breaks ties between shortest paths.
MOVES = {"R": (0, 1), "D": (1, 0), "L": (0, -1), "U": (-1, 0)}

Split = Literal["train", "test"]
Cell = tuple[int, int]
Rows = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Maze:
    """A solvable maze. ``solution`` is its shortest safe path, as moves."""

    rows: Rows
    solution: str

    @property
    def size(self) -> int:
        return len(self.rows)


def is_test_split(rows: Sequence[str]) -> bool:
    """Whether the maze is reserved for tests: sha256 of its rows joined by newlines is 0 modulo 8."""
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return int(digest, 16) % TEST_MODULUS == 0


def find(rows: Sequence[str], kind: str) -> Cell:
    """The first cell of a kind. Raises: ValueError if there is none."""
    for row, line in enumerate(rows):
        column = line.find(kind)
        if column >= 0:
            return row, column
    raise ValueError(f"the maze has no {kind}")


def step(rows: Sequence[str], cell: Cell, move: str) -> Cell:
    """The cell after one move; a move off the grid stays in place."""
    row, column = cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]
    return (row, column) if 0 <= row < len(rows) and 0 <= column < len(rows[0]) else cell


def run_path(rows: Sequence[str], moves: str) -> bool:
    """Whether the walk ends on the goal and enters no hole. A letter that is no move fails the walk."""
    cell = find(rows, START)
    for move in moves:
        if move not in MOVES:
            return False
        cell = step(rows, cell, move)
        if rows[cell[0]][cell[1]] == HOLE:
            return False
    return rows[cell[0]][cell[1]] == GOAL


def path_cells(rows: Sequence[str], moves: str) -> list[Cell]:
    """The cells that a walk is in, the start first."""
    cells = [find(rows, START)]
    for move in moves:
        cells.append(step(rows, cells[-1], move))
    return cells


def best_moves(rows: Sequence[str]) -> dict[Cell, str]:
    """For each cell that can reach the goal safely, but the goal itself, the first move of a shortest safe path.

    Among equals the first in the order of ``MOVES``.
    """
    goal = find(rows, GOAL)
    distance = {goal: 0}
    queue = deque([goal])
    while queue:
        here = queue.popleft()
        for move in MOVES:
            there = step(rows, here, move)
            if there not in distance and rows[there[0]][there[1]] != HOLE:
                distance[there] = distance[here] + 1
                queue.append(there)
    return {
        cell: next(move for move in MOVES if distance.get(step(rows, cell, move)) == distance[cell] - 1)
        for cell in distance
        if cell != goal
    }


def solve(rows: Sequence[str]) -> str | None:
    """The shortest safe path that ``best_moves`` walks from the start. None if there is none."""
    best, cell, goal = best_moves(rows), find(rows, START), find(rows, GOAL)
    if cell not in best:
        return None
    moves = []
    while cell != goal:
        moves.append(best[cell])
        cell = step(rows, cell, best[cell])
    return "".join(moves)


def straight_path(rows: Sequence[str]) -> str:
    """The baseline that sees start and goal but no hole: all rows first, then all columns."""
    (row, column), (goal_row, goal_column) = find(rows, START), find(rows, GOAL)
    vertical, horizontal = goal_row - row, goal_column - column
    return ("D" if vertical > 0 else "U") * abs(vertical) + ("R" if horizontal > 0 else "L") * abs(horizontal)


def draw_lot(rng: random.Random, size: int, split: Split) -> Maze:
    """The next maze of a split: density, holes, start and goal by lot until start and goal are n-1 steps or more apart.

    Uses ``rng.random()`` alone, the one method whose sequence Python promises to keep across versions.
    """
    while True:
        density = MIN_HOLE_DENSITY + (MAX_HOLE_DENSITY - MIN_HOLE_DENSITY) * rng.random()
        cells = list(range(size * size))
        num_special = round(density * size * size) + 2
        for index in range(num_special):  # the first steps of a Fisher-Yates shuffle
            other = index + int(rng.random() * (len(cells) - index))
            cells[index], cells[other] = cells[other], cells[index]
        maze = _maze(size, cells[0], cells[1], cells[2:num_special])
        if maze is not None and is_test_split(maze.rows) == (split == "test"):
            return maze


def generate(size: int, seed: int, split: Split = "test") -> Maze:
    """The maze of a size, seed and split: the same on every machine."""
    if size not in SIZES:
        raise ValueError(f"size must be {SIZES[0]} to {SIZES[-1]}, not {size}")
    return draw_lot(random.Random(f"maze:{size}:{split}:{seed}"), size, split)


def distinct(size: int, split: Split, count: int, seed: int = 0) -> list[Maze]:
    """``count`` distinct mazes of a split in a fixed order, or all that exist (408 unseen ones at 3x3)."""
    rng = random.Random(f"distinct:{size}:{split}:{seed}")
    if size == SIZES[0]:
        every = [maze for maze in every_maze(size) if is_test_split(maze.rows) == (split == "test")]
        return sorted(every, key=lambda _: rng.random())[:count]
    found: dict[Rows, Maze] = {}
    while len(found) < count:
        maze = draw_lot(rng, size, split)
        found.setdefault(maze.rows, maze)
    return list(found.values())


def every_maze(size: int) -> Iterator[Maze]:
    """Every maze of a size that ``draw_lot`` can give. Practical for 3x3 only."""
    num_cells = size * size
    fewest, most = round(MIN_HOLE_DENSITY * num_cells), round(MAX_HOLE_DENSITY * num_cells)
    for start, goal in itertools.permutations(range(num_cells), 2):
        others = [cell for cell in range(num_cells) if cell not in (start, goal)]
        for num_holes in range(fewest, most + 1):
            for holes in itertools.combinations(others, num_holes):
                maze = _maze(size, start, goal, holes)
                if maze is not None:
                    yield maze


def _maze(size: int, start: int, goal: int, holes: Sequence[int]) -> Maze | None:
    """The maze with these cells (numbered row by row), or None if it has no safe path or too short a one."""
    cells = [FREE] * (size * size)
    cells[start], cells[goal] = START, GOAL
    for hole in holes:
        cells[hole] = HOLE
    rows = tuple("".join(cells[row * size : (row + 1) * size]) for row in range(size))
    solution = solve(rows)
    return Maze(rows, solution) if solution is not None and len(solution) >= size - 1 else None
