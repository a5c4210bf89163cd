"""How fast jobs end, and so how long a caller who was refused should wait."""

import math
from collections import deque
from collections.abc import Callable

WINDOW_S = 60.0
MIN_SPAN_S = 1.0  # ends closer together than this say nothing of a rate
MAX_ENDS = 1024  # at more than 17 a second they span less than the window, which is long enough then
LONGEST_S = 60
UNKNOWN_S = 5  # nothing has ended lately: the server has just started, or its answers take very long


def retry_after_s(num_waiting: int, num_ended: int, span_s: float) -> int:
    """The time in which as many jobs end as wait now, by the rate of ``num_ended`` in ``span_s``; 1 to 60 s."""
    if not num_ended:
        return UNKNOWN_S
    return min(max(math.ceil(num_waiting * max(span_s, MIN_SPAN_S) / num_ended), 1), LONGEST_S)


class EndRate:
    """Ends of the last minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ended_at: deque[float] = deque(maxlen=MAX_ENDS)

    def count(self) -> None:
        self._ended_at.append(self._clock())

    def retry_after_s(self, num_waiting: int) -> int:
        now_s = self._clock()
        while self._ended_at and self._ended_at[0] < now_s - WINDOW_S:
            self._ended_at.popleft()
        span_s = now_s - self._ended_at[0] if self._ended_at else 0.0
        return retry_after_s(num_waiting, len(self._ended_at), span_s)
