"""When requests are due: a pure function of the profile, so that processes can share the work without talking."""

import itertools
import random
from collections.abc import Iterator

from loadtests.profile import Profile


def due_times_s(profile: Profile) -> Iterator[float]:
    """Of each request the seconds since the start, in order.

    poisson: independent people, who come in bunches, as queueing theory and real traffic have it. even: a metronome.
    """
    rng = random.Random(f"arrivals:{profile.seed}")
    begins_s = 0.0
    for stage in profile.stages:
        since_s = 0.0
        for number in itertools.count(1):
            is_even = profile.arrivals == "even"
            since_s = number / stage.level if is_even else since_s + rng.expovariate(stage.level)
            if since_s >= stage.seconds:
                break
            yield begins_s + since_s
        begins_s += stage.seconds


def share_of(profile: Profile, index: int, num_processes: int) -> Iterator[tuple[int, float]]:
    """Number and due time of the requests that one of the processes makes: every ``num_processes``-th."""
    for number, due_s in enumerate(due_times_s(profile)):
        if number % num_processes == index % num_processes:
            yield number, due_s


def num_users_at(profile: Profile, seconds: float) -> int | None:
    """Users of a closed loop at a time since the start. None: it is over."""
    for stage in profile.stages:
        if seconds < stage.seconds:
            return round(stage.level)
        seconds -= stage.seconds
    return None
