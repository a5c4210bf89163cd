"""What counts as different, and that a difference once found is not lost."""

import numpy as np
import pytest
import torch

from training.comparison import NUMBER_BOUND, VECTOR_BOUND, Comparison

NAN = float("nan")


def test_the_bounds_are_those_asked_for() -> None:
    assert NUMBER_BOUND == 1e-4
    assert VECTOR_BOUND == 1e-4


def test_a_number_is_compared_relative_to_the_recorded_one() -> None:
    found = Comparison()
    found.number("near", 200.01, 200.0, "")  # 5e-5
    found.number("far", 200.03, 200.0, "")  # 1.5e-4
    found.number("small and far", 1.0002e-3, 1e-3, "")
    assert found.failed == ["far", "small and far"]
    assert found.rows["near"].largest == pytest.approx(5e-5)


def test_a_vector_is_compared_relative_to_its_largest_component() -> None:
    found = Comparison()
    want = np.array([100.0, 0.0], dtype=np.float32)
    found.vector("near", torch.tensor([100.0, 0.005]), want, "")
    found.vector("far", torch.tensor([100.0, 0.02]), want, "")
    found.vector("of another shape", torch.tensor([[100.0, 0.0]]), want, "")
    found.vector("empty", torch.zeros(0), np.zeros(0, dtype=np.float32), "")
    assert found.failed == ["far", "of another shape"]


def test_what_must_be_equal_is_compared_element_by_element() -> None:
    found = Comparison()
    found.exact("same", [[1, 2]], [[1, 2]], "")
    found.exact("another order", [[2, 1]], [[1, 2]], "")
    found.exact("longer", [1, 2], [1], "")
    assert found.failed == ["another order", "longer"]


@pytest.mark.parametrize("values", [[NAN], [1.0, NAN], [NAN, 1.0]], ids=str)
def test_what_is_no_number_fails_whatever_comes_before_or_after(values: list[float]) -> None:
    found = Comparison()
    for value in values:
        found.number("loss", value, 1.0, "")
        found.vector("states", torch.tensor([value]), np.ones(1, dtype=np.float32), "")
    assert found.failed == ["loss", "states"]


def test_the_largest_difference_and_its_place_are_kept() -> None:
    found = Comparison()
    for difference, where in ((1e-3, "first"), (3e-3, "second"), (2e-3, "third")):
        found.number("loss", 1 + difference, 1.0, where)
    assert found.rows["loss"].where == "second"
    line = next(line for line in found.table().splitlines() if line.startswith("loss"))
    assert line.split() == ["loss", "3", "3.00e-03", "1e-04", "second", "WRONG"]
