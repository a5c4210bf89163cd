"""One test for each clause of the simulator, on a maze that can be walked by eye.

S . .
H . H
. . G
"""

import pytest

from contracts.errors import InvalidRequest
from training.vsp import is_success, moves_of, rows_of_map

MAP = ((1, 0, 0), (-1, 0, -1), (0, 0, 2))


def test_cells_are_start_goal_hole_and_free():
    assert rows_of_map(MAP) == ("S..", "H.H", "..G")


def test_a_path_that_ends_on_the_goal_succeeds():
    assert is_success(MAP, "RDDR")


def test_a_detour_succeeds_as_well():
    assert is_success(MAP, "RRLDDLRR")


@pytest.mark.parametrize("path", ["RDD", "", "RDDRL"])
def test_a_path_that_ends_elsewhere_fails(path):
    assert not is_success(MAP, path)


def test_a_path_that_only_crosses_the_goal_fails():
    assert is_success(MAP, "RDDR")
    assert not is_success(MAP, "RDDRL")
    assert is_success(MAP, "RDDRLR")


@pytest.mark.parametrize("path", ["DDRR", "RRDD"])
def test_a_path_through_a_hole_fails_though_it_ends_on_the_goal(path):
    """Both would be on the goal after four moves."""
    assert not is_success(MAP, path)
    without_holes = tuple(tuple(max(cell, 0) for cell in row) for row in MAP)
    assert is_success(without_holes, path)


def test_a_path_that_leaves_a_hole_again_fails():
    assert not is_success(MAP, "DURDDR")


@pytest.mark.parametrize("path", ["URDDR", "LRDDR", "RDDDR", "RDDRR", "RDDRD"])
def test_a_move_off_the_grid_stays_in_place(path):
    """On each of the four sides: the other moves are those of RDDR."""
    assert is_success(MAP, path)


def test_a_move_off_the_grid_is_not_a_step_to_the_other_side():
    assert not is_success(((1, 0, 2),), "L")


@pytest.mark.parametrize(
    ("text", "moves"),
    [
        ("RRDL", "RRDL"),
        ("rrdl", "RRDL"),
        ("R, R -> D; L.", "RRDL"),
        ("Right, right, down, LEFT", "RRDL"),
        ("UP down Left rIGHT", "UDLR"),
        (r"\text{RRDL}", "RRDL"),
        ("R1X D", "RD"),
        ("", ""),
        ("none", ""),
    ],
)
def test_letters_and_words_are_moves_and_the_rest_is_skipped(text, moves):
    assert moves_of(text) == moves


def test_words_walk():
    assert is_success(MAP, "right, down, down, right")


def test_the_map_need_not_be_square():
    assert is_success(((1, 0, 0, 2),), "RRR")
    assert not is_success(((1, -1, 0, 2),), "RRR")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (((0, 0), (0, 2)), "no start"),
        (((1, 0), (2,)), "one length"),
        ((), "one length"),
        (((1, 3), (0, 2)), "not 3"),
    ],
)
def test_a_map_that_is_none_is_told(wrong, message):
    with pytest.raises(InvalidRequest, match=message):
        is_success(wrong, "RD")
