"""What one process has seen. All of it adds up, so that the master of several processes only has to add.

Time to answer and the like are counted from when the request was due, and at the window of that time.
"""

from collections import Counter, defaultdict
from typing import Any

from loadtests.histogram import Histogram

# Names of what is measured, in the order in which it is shown.
TIME_TO_FIRST_STEP = "time_to_first_step"
TEXT_GAP = "text_gap"
LATENT_BLOCK = "latent_block"
TIME_TO_ANSWER = "time_to_answer"
CANCEL = "cancel"
LATENESS = "lateness"
TITLES = {
    TIME_TO_FIRST_STEP: "time to first step",
    TEXT_GAP: "text inter-token gap",
    LATENT_BLOCK: "latent block time",
    TIME_TO_ANSWER: "time to answer",
    CANCEL: "from cancel to its end",
    LATENESS: "lateness of the load itself",
}

# answered: to the end that the server promised. refused: 429 or 503. unfinished: still open when the load had ended.
OUTCOMES = ("answered", "cancelled", "left", "refused", "failed", "unfinished")
ALL = "all"


class Recorder:
    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.clear()

    def clear(self) -> None:
        self.times: dict[tuple[str, str], Histogram] = defaultdict(Histogram)  # by measure and kind
        self.times_at: dict[tuple[str, int], Histogram] = defaultdict(Histogram)  # by measure and window
        self.outcomes: Counter[tuple[str, str]] = Counter()  # by kind and outcome
        self.outcomes_at: Counter[tuple[str, int]] = Counter()  # by outcome, or "begun", and window
        self.reasons: Counter[str] = Counter()
        self.num_repeated = 0
        self.num_done = 0

    def began(self, due_s: float, lateness_s: float, is_repeated: bool) -> None:
        self.outcomes_at["begun", self._window(due_s)] += 1
        self.num_repeated += is_repeated
        self.time(LATENESS, ALL, due_s, lateness_s)

    def time(self, measure: str, kind: str, due_s: float, seconds: float) -> None:
        for name in {kind, ALL}:
            self.times[measure, name].add(seconds)
        self.times_at[measure, self._window(due_s)].add(seconds)

    def ended(self, kind: str, due_s: float, outcome: str, reason: str | None = None) -> None:
        self.outcomes[kind, outcome] += 1
        self.outcomes_at[outcome, self._window(due_s)] += 1
        if reason is not None:
            self.reasons[f"{kind}: {reason}"] += 1

    def done(self) -> None:
        """This process has made all its requests, and each has ended."""
        self.num_done += 1

    def take(self) -> dict[str, Any]:
        """All since the last time, in what can be sent."""
        told = {
            "times": [[*key, _told(times)] for key, times in self.times.items()],
            "times_at": [[*key, _told(times)] for key, times in self.times_at.items()],
            "outcomes": [[*key, count] for key, count in self.outcomes.items()],
            "outcomes_at": [[*key, count] for key, count in self.outcomes_at.items()],
            "reasons": dict(self.reasons),
            "num_repeated": self.num_repeated,
            "num_done": self.num_done,
        }
        self.clear()
        return told

    def add(self, told: dict[str, Any]) -> None:
        """What another process has taken."""
        for measure, kind, times in told["times"]:
            self.times[measure, kind].merge(_heard(times))
        for measure, window, times in told["times_at"]:
            self.times_at[measure, window].merge(_heard(times))
        self.outcomes.update({(kind, outcome): count for kind, outcome, count in told["outcomes"]})
        self.outcomes_at.update({(outcome, window): count for outcome, window, count in told["outcomes_at"]})
        self.reasons.update(told["reasons"])
        self.num_repeated += told["num_repeated"]
        self.num_done += told["num_done"]

    def _window(self, due_s: float) -> int:
        return int(due_s / self.window_s)


def _told(times: Histogram) -> dict[str, Any]:
    return {"buckets": list(times.buckets.items()), "total_s": times.total_s, "max_s": times.max_s}


def _heard(told: dict[str, Any]) -> Histogram:
    return Histogram(dict(told["buckets"]), told["total_s"], told["max_s"])
