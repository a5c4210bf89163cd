"""Mazes: the rules by hand-made grids, the split by its definition, the pictures by what a person would look for."""

import hashlib
from itertools import combinations

import pytest

from contracts.maze_pictures import CELL_PX, PATH, draw_maze, draw_solution, path_exits, tile
from contracts.mazes import (
    SIZES,
    Maze,
    distinct,
    every_maze,
    generate,
    is_test_split,
    run_path,
    solve,
    straight_path,
)

CORRIDOR = ("SH.", "..H", "H.G")


@pytest.mark.parametrize(
    ("moves", "is_success"),
    [
        ("DRDR", True),
        ("LLDRDR", True),  # off the grid stays in place
        ("DRDRR", True),  # off the grid on the goal
        ("DRD", False),  # stops short
        ("RDDR", False),  # first step into a hole
        ("DRDRL", False),  # walks off the goal again
        ("DRDRLURR", False),  # through the goal, then into a hole
        ("DRXR", False),  # no such move
        ("", False),
    ],
)
def test_a_walk_succeeds_if_it_ends_on_the_goal_and_enters_no_hole(moves: str, is_success: bool) -> None:
    assert run_path(CORRIDOR, moves) is is_success


def test_solve_finds_the_only_path() -> None:
    assert solve(CORRIDOR) == "DRDR"


def test_solve_breaks_ties_right_before_down() -> None:
    assert solve(("S..", "...", "..G")) == "RRDD"
    assert solve(("G..", "...", "..S")) == "LLUU"


def test_solve_knows_a_walled_in_goal() -> None:
    assert solve(("S.H", ".HG", "..H")) is None


def test_the_straight_walk_sees_no_hole() -> None:
    assert straight_path(CORRIDOR) == "DDRR"
    assert not run_path(CORRIDOR, straight_path(CORRIDOR))
    assert run_path(("S..", "...", "..G"), "DDRR")


def test_the_split_is_the_hash_of_the_rows_modulo_8() -> None:
    for maze in distinct(4, "test", 5) + distinct(4, "train", 5):
        digest = hashlib.sha256("\n".join(maze.rows).encode()).hexdigest()
        assert is_test_split(maze.rows) == (int(digest[-1], 16) % 8 == 0)


def test_the_splits_share_no_maze() -> None:
    train, test = distinct(3, "train", 10_000), distinct(3, "test", 10_000)
    assert len(train) + len(test) == len(list(every_maze(3)))
    assert not {maze.rows for maze in train} & {maze.rows for maze in test}
    assert len(test) == 408


@pytest.mark.parametrize("size", SIZES)
def test_generated_mazes_keep_what_is_promised(size: int) -> None:
    for seed in range(50):
        maze = generate(size, seed)
        cells = "".join(maze.rows)
        assert maze.size == size
        assert {len(row) for row in maze.rows} == {size}
        assert (cells.count("S"), cells.count("G")) == (1, 1)
        assert 0.10 * size**2 - 0.5 <= cells.count("H") <= 0.45 * size**2 + 0.5
        assert len(maze.solution) >= size - 1
        assert run_path(maze.rows, maze.solution)
        assert is_test_split(maze.rows)
        assert not is_test_split(generate(size, seed, "train").rows)


def test_a_seed_gives_the_same_maze_everywhere() -> None:
    """Recorded once: a change here changes what `ilvr maze --seed` means."""
    assert generate(4, 7) == Maze(("SHHG", "....", "H...", "..HH"), "DRRRU")


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 to 6"):
        generate(7, 0)


def test_distinct_mazes_are_distinct_and_reproducible() -> None:
    mazes = distinct(5, "test", 100)
    assert len({maze.rows for maze in mazes}) == 100
    assert distinct(5, "test", 100) == mazes
    assert distinct(5, "test", 100, seed=1) != mazes


def test_a_cell_is_28_pixels_and_looks_the_same_anywhere() -> None:
    maze = generate(5, 1)
    picture = draw_maze(maze.rows)
    assert picture.size == (5 * CELL_PX, 5 * CELL_PX)
    assert picture.mode == "RGB"
    for row, line in enumerate(maze.rows):
        for column, kind in enumerate(line):
            left, top = column * CELL_PX, row * CELL_PX
            cut = picture.crop((left, top, left + CELL_PX, top + CELL_PX))
            assert cut.tobytes() == tile(kind).tobytes()


def test_kinds_of_cells_are_told_apart_by_colour() -> None:
    def mean(kind: str) -> tuple[float, ...]:
        data = tile(kind).tobytes()
        return tuple(sum(data[channel::3]) / CELL_PX**2 for channel in range(3))

    means = [mean(kind) for kind in "SGH."]
    for one, other in combinations(means, 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 30  # of 255


def test_the_helper_image_draws_the_path_and_nothing_else() -> None:
    assert path_exits(CORRIDOR, "DRDR") == {(0, 0): "D", (1, 0): "RU", (1, 1): "DL", (2, 1): "RU", (2, 2): "L"}
    plain, helper = draw_maze(CORRIDOR), draw_solution(CORRIDOR, "DRDR")
    assert helper.getpixel((1 * CELL_PX + 14, 1 * CELL_PX + 14)) == PATH
    corner = (2 * CELL_PX, 0, 3 * CELL_PX, CELL_PX)
    assert helper.crop(corner).tobytes() == plain.crop(corner).tobytes()
    assert helper.tobytes() != plain.tobytes()
