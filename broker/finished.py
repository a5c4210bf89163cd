"""Finished logs, kept for a while so that a client can come back for its answer."""

from collections import OrderedDict
from collections.abc import Callable

from broker.limits import BrokerLimits
from broker.log import ResponseLog


class FinishedLogs:
    """In the order in which they finished, which is the order in which they are forgotten.

    ``on_forgotten`` is called with the id of each.
    """

    def __init__(self, limits: BrokerLimits, clock: Callable[[], float], on_forgotten: Callable[[str], None]) -> None:
        self._limits = limits
        self._clock = clock
        self._on_forgotten = on_forgotten
        self._logs: OrderedDict[str, tuple[float, ResponseLog]] = OrderedDict()
        self.num_bytes = 0

    def add(self, log: ResponseLog) -> None:
        self._logs[log.job.response_id] = (self._clock(), log)
        self.num_bytes += log.num_bytes
        self.forget_expired()

    def get(self, response_id: str) -> ResponseLog | None:
        self.forget_expired()
        found = self._logs.get(response_id)
        return found[1] if found else None

    def forget_expired(self) -> None:
        oldest_allowed = self._clock() - self._limits.keep_finished_s
        while self._logs:
            response_id, (finished_at, log) = next(iter(self._logs.items()))
            if finished_at >= oldest_allowed and self.num_bytes <= self._limits.max_finished_bytes:
                return
            del self._logs[response_id]
            self.num_bytes -= log.num_bytes
            self._on_forgotten(response_id)
