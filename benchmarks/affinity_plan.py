"""What is asked in a turn, and what is made of its answers. Pure but for drawing."""

import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

COUNTS = ("images_encoded", "encoder_cache_hits")


@dataclass(frozen=True)
class Ask:
    """``nth``: the how manieth question about its picture, from 0. ``at_s``: after the begin of the turn."""

    picture: int
    nth: int
    at_s: float


@dataclass(frozen=True)
class Answer:
    nth: int
    queue_ms: float
    first_step_ms: float


@dataclass(frozen=True)
class Turn:
    """``hit_rate``: share of the questions, one picture each, without an encoder call. Times in ms, from submission.

    ``hits``: what engines count as such; not among them is a question in the same step as the one that is encoded.
    """

    pictures: str
    affinity_s: float
    repetition: int
    asked: int
    encoded: int
    hits: int
    hit_rate: float
    first_p50_ms: float
    first_p90_ms: float
    again_p50_ms: float
    again_p90_ms: float
    worst_queue_ms: float


def arrivals(num_pictures: int, times: int, window: int, rate_per_s: float, seed: int) -> list[Ask]:
    """Each picture ``times`` times, in lots of ``window`` pictures whose questions are mixed; a Poisson process."""
    rng = random.Random(seed)
    order: list[int] = []
    for first in range(0, num_pictures, window):
        lot = list(range(first, min(first + window, num_pictures))) * times
        rng.shuffle(lot)
        order += lot
    asks, at_s, counts = [], 0.0, [0] * num_pictures
    for picture in order:
        at_s += rng.expovariate(rate_per_s)
        asks.append(Ask(picture, counts[picture], at_s))
        counts[picture] += 1
    return asks


def counted(pages: Sequence[str]) -> dict[str, float]:
    """Sums over the ``/metrics`` of all runners. Raises ``ValueError``: a count that is not exported is not 0."""
    totals = dict.fromkeys(COUNTS, 0.0)
    for page in pages:
        for name in COUNTS:
            found = re.search(rf"^ilvr_runner_{name}_total (\S+)$", page, re.MULTILINE)
            if found is None:
                raise ValueError(f"ilvr_runner_{name}_total is not exported")
            totals[name] += float(found[1])
    return totals


def reduce(
    pictures: str,
    affinity_s: float,
    repetition: int,
    answers: Sequence[Answer],
    before: dict[str, float],
    after: dict[str, float],
) -> Turn:
    """Raises ``ValueError`` for counts that cannot be those of this turn."""
    encoded, hits = (int(after[name] - before[name]) for name in COUNTS)
    first = [answer.first_step_ms for answer in answers if answer.nth == 0]
    if encoded < len(first) or encoded + hits > len(answers):
        raise ValueError(f"{encoded} encoded, {hits} found: of {len(answers)} questions on {len(first)} pictures")
    again = [answer.first_step_ms for answer in answers if answer.nth > 0]
    return Turn(
        pictures=pictures,
        affinity_s=affinity_s,
        repetition=repetition,
        asked=len(answers),
        encoded=encoded,
        hits=hits,
        hit_rate=round(1 - encoded / len(answers), 3),
        first_p50_ms=quantile(first, 50),
        first_p90_ms=quantile(first, 90),
        again_p50_ms=quantile(again, 50),
        again_p90_ms=quantile(again, 90),
        worst_queue_ms=round(max(answer.queue_ms for answer in answers), 1),
    )


def quantile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 1)
