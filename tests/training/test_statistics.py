"""Intervals worked out by hand from Wilson's formula, and from what defines it."""

import math

import pytest

from training.statistics import Z_95, mean, percentile, wilson_interval


def test_eight_of_ten_by_hand():
    # z² = 3.841459; centre (0.8 + 0.192073) / 1.384146 = 0.716740;
    # half 1.959964 · √(0.016 + 0.009603648) / 1.384146 = 1.959964 · 0.160011 / 1.384146 = 0.226577
    assert wilson_interval(8, 10) == pytest.approx((0.490163, 0.943317), abs=2e-6)


def test_none_and_all_of_ten_have_a_width():
    # At a share of 0 the bounds are 0 and z² / (n + z²) = 3.841459 / 13.841459.
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.277533), abs=2e-6)
    assert wilson_interval(10, 10) == pytest.approx((0.722467, 1.0), abs=2e-6)


@pytest.mark.parametrize(("right", "trials"), [(1, 3), (95, 100), (411, 500), (1, 5000)])
def test_bounds_solve_the_equation_that_defines_them(right, trials):
    for bound in wilson_interval(right, trials):
        assert abs(right / trials - bound) == pytest.approx(Z_95 * math.sqrt(bound * (1 - bound) / trials), rel=1e-9)


def test_no_trial_says_nothing_and_impossible_counts_are_refused():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for right, trials in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="successes"):
            wilson_interval(right, trials)


def test_percentiles_are_values_that_occurred():
    ten = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 10.0, 4.0, 8.0, 6.0]
    assert (percentile(ten, 0.5), percentile(ten, 0.95), percentile(ten, 0.0)) == (5.0, 10.0, 1.0)
    assert percentile([], 0.5) == 0.0
    assert (mean([1.0, 2.0, 6.0]), mean([])) == (3.0, 0.0)
