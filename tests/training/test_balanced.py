"""Even shares by hand, and that what is drawn is as even as what there is allows, distinct, and the same again."""

from collections import Counter
from collections.abc import Callable

import pytest

from contracts.mazes import distinct, every_maze, is_test_split, run_path
from contracts.trails import follow, lengths
from training import balanced
from training.balanced import Balanced, balanced_mazes, balanced_trails, even_shares


@pytest.mark.parametrize(
    ("available", "count", "shares"),
    [
        ({2: 9, 3: 9, 4: 9}, 9, {2: 3, 3: 3, 4: 3}),
        ({2: 9, 3: 9, 4: 9}, 10, {2: 4, 3: 3, 4: 3}),  # what is left over goes to the smallest
        ({4: 9, 3: 9, 2: 9}, 11, {2: 4, 3: 4, 4: 3}),
        ({2: 1, 3: 9, 4: 9}, 9, {2: 1, 3: 4, 4: 4}),
        ({2: 1, 3: 2, 4: 9}, 9, {2: 1, 3: 2, 4: 6}),
        ({2: 1, 3: 2, 4: 3}, 100, {2: 1, 3: 2, 4: 3}),
        ({2: 0, 3: 5}, 2, {2: 0, 3: 2}),
        ({2: 5}, 0, {2: 0}),
        ({}, 5, {}),
    ],
)
def test_even_shares(available: dict[int, int], count: int, shares: dict[int, int]) -> None:
    assert even_shares(available, count) == shares


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balanced, "MIN_DRAWS", 100)
    monkeypatch.setattr(balanced, "MAZE_DRAWS", 10)


def test_mazes_are_even_by_size_and_by_length() -> None:
    drawn = balanced_mazes([3, 5], "train", 40, seed=0)
    assert Counter(maze.size for maze in drawn.puzzles) == {3: 20, 5: 20}
    small = Counter(len(maze.solution) for maze in drawn.puzzles if maze.size == 3)
    assert small == {2: 4, 3: 4, 4: 4, 5: 4, 6: 4}  # all five lengths of 3x3 have at least 16 mazes
    large = Counter(len(maze.solution) for maze in drawn.puzzles if maze.size == 5)
    even = max(large.values())
    for length, count in large.items():
        assert count >= even - 1 or count == drawn.found[5, length]
    assert len({maze.rows for maze in drawn.puzzles}) == 40
    assert all(run_path(maze.rows, maze.solution) for maze in drawn.puzzles)


def test_without_balance_the_same_draws_are_mostly_short() -> None:
    """The balance has something to do: by lot more than half of all 3x3 paths have two steps."""
    drawn = balanced_mazes([3], "train", 200, seed=0, are_lengths_even=False)
    assert Counter(len(maze.solution) for maze in drawn.puzzles)[2] > 80
    assert {maze.rows for maze in drawn.puzzles} == {maze.rows for maze in distinct(3, "train", 200)}
    assert drawn.short_lengths == set()


def test_lengths_that_run_out_are_told_and_the_others_share_the_rest() -> None:
    every = Counter(len(maze.solution) for maze in every_maze(3) if is_test_split(maze.rows))
    assert sum(every.values()) == 408
    drawn = balanced_mazes([3], "test", 300, seed=0)
    taken = Counter(len(maze.solution) for maze in drawn.puzzles)
    assert drawn.taken == {(3, length): count for length, count in taken.items()}
    assert (taken[4], taken[5]) == (every[4], every[5])
    assert abs(taken[2] - taken[3]) <= 1 or taken[3] == every[3]
    assert {(3, 4), (3, 5)} <= drawn.short_lengths
    assert (3, 2) not in drawn.short_lengths


def test_a_size_that_runs_out_is_told_and_the_others_share_the_rest() -> None:
    drawn = balanced_mazes([3, 4], "test", 900, seed=0, are_lengths_even=False)
    assert drawn.taken_of_size == {3: 408, 4: 492}
    assert drawn.short_sizes == [3]
    assert len(balanced_mazes([3], "test", 1000, seed=0).puzzles) == 408


@pytest.mark.parametrize("draw", [balanced_mazes, balanced_trails])
def test_splits_are_disjoint_and_a_seed_repeats(draw: Callable[..., Balanced]) -> None:
    train, test = draw([4, 5], "train", 100, 0), draw([4, 5], "test", 40, 0)
    assert all(is_test_split(puzzle.rows) for puzzle in test.puzzles)
    assert not {puzzle.rows for puzzle in train.puzzles} & {puzzle.rows for puzzle in test.puzzles}
    assert draw([4, 5], "train", 100, 0) == train
    assert draw([4, 5], "train", 100, 1).puzzles != train.puzzles


def test_trails_are_even_by_size_and_by_length() -> None:
    drawn = balanced_trails([4, 6], "train", 60, seed=0)
    assert Counter((trail.size, trail.length) for trail in drawn.puzzles) == {
        (size, length): 5 for size in (4, 6) for length in lengths(size)
    }
    assert len({trail.rows for trail in drawn.puzzles}) == 60
    assert all(follow(trail.rows) == trail.cells for trail in drawn.puzzles)
    assert drawn.short_lengths == set()
    assert drawn.short_sizes == []


def test_the_order_is_mixed() -> None:
    sizes = [maze.size for maze in balanced_mazes([3, 4], "train", 60, seed=0).puzzles]
    assert 5 < sizes[:30].count(3) < 25


def test_drawing_ends_when_there_is_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balanced, "PATIENCE", 3)
    told: list[tuple[int, int, int]] = []
    drawn: Balanced = balanced_trails([3], "test", 100_000, 0, lambda *numbers: told.append(numbers))
    assert 0 < len(drawn.puzzles) < len(told) < 100_000
    assert told[0] == (3, 1, 200_000)
