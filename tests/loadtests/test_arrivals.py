"""When requests are due, and who makes which of them."""

import statistics
from itertools import pairwise

import pytest

from loadtests.arrivals import due_times_s, num_users_at, share_of
from loadtests.profile import Profile, Stage

STAGES = [Stage(seconds=100, level=5), Stage(seconds=50, level=20)]


def test_independent_arrivals_have_the_rate_of_each_stage_and_come_in_bunches():
    times = list(due_times_s(Profile(stages=STAGES)))
    assert times == sorted(times)
    assert sum(time < 100 for time in times) == pytest.approx(500, abs=4 * 500**0.5)
    assert sum(time >= 100 for time in times) == pytest.approx(1000, abs=4 * 1000**0.5)
    gaps = [b - a for a, b in pairwise(times) if b < 100]
    # Of an exponential distribution the deviation is the mean; a metronome's is 0.
    assert statistics.pstdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.2)


def test_even_arrivals_are_a_metronome():
    times = list(due_times_s(Profile(stages=[Stage(seconds=2, level=4)], arrivals="even")))
    assert times == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75])
    # Tenths of a second, added up, come to a little less than eight.
    assert len(list(due_times_s(Profile(stages=[Stage(seconds=8, level=10)], arrivals="even")))) == 79


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_processes_make_together_what_one_would_make(num_processes):
    profile = Profile(stages=STAGES)
    shares = [list(share_of(profile, index, num_processes)) for index in range(num_processes)]
    assert sorted(request for share in shares for request in share) == list(enumerate(due_times_s(profile)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_users_of_a_closed_loop_follow_the_stages_and_end():
    profile = Profile(loop="closed", stages=STAGES)
    assert [num_users_at(profile, at) for at in (0, 99.9, 100, 149.9, 150)] == [5, 5, 20, 20, None]
