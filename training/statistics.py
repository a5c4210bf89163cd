"""What an accuracy is worth: the interval of a share, and percentiles of a few hundred timings."""

import math
from collections.abc import Sequence

# Two-sided 95 % quantile of the normal distribution.
Z_95 = 1.959964


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share, in 0 to 1 (Wilson 1927).

    It is the set of shares p with |p̂ - p| <= z √(p (1 - p) / n), and so stays inside 0 to 1 and keeps a width where the
    share is 0 or 1. Without a trial nothing is known: (0, 1).

    Raises:
        ValueError: more successes than trials, or fewer than none.
    """
    if not 0 <= num_successes <= num_trials:
        raise ValueError(f"{num_successes} successes of {num_trials} trials")
    if num_trials == 0:
        return 0.0, 1.0
    share, z2 = num_successes / num_trials, Z_95**2
    centre = (share + z2 / (2 * num_trials)) / (1 + z2 / num_trials)
    spread = math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2))
    half = Z_95 * spread / (1 + z2 / num_trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed (nearest rank); 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def mean(values: Sequence[float]) -> float:
    """Of none: 0."""
    return sum(values) / len(values) if values else 0.0
