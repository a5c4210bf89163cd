"""Whether one more job may come in."""

from collections import Counter
from collections.abc import Callable

from broker.dispatch import Dispatch
from broker.limits import MIB, BrokerLimits
from broker.rate import EndRate
from contracts.errors import Overloaded, RateLimited


class Admission:
    """Counts what is open and what ended; ``dispatch`` knows what waits."""

    def __init__(self, limits: BrokerLimits, clock: Callable[[], float], dispatch: Dispatch) -> None:
        self._limits = limits
        self._dispatch = dispatch
        self._rate = EndRate(clock)
        self._num_open: Counter[str] = Counter()

    def check_room(self, num_bytes: int, owner: str) -> None:
        """For a job of so many bytes. Raises ``Overloaded``."""
        num_ahead, waiting_bytes = self._dispatch.num_ahead, self._dispatch.num_bytes
        if num_ahead < 0:
            return  # a runner has room for it
        limits, max_waiting, max_bytes = self._limits, self._limits.max_waiting, self._limits.max_waiting_bytes
        if not self._dispatch.has_any_of(owner):
            max_waiting, max_bytes = max_waiting + limits.num_reserved, max_bytes + limits.reserved_bytes
        if num_ahead >= max_waiting:
            self._refuse(f"{num_ahead} requests are waiting, which is as many as the queue admits.")
        if waiting_bytes + num_bytes > max_bytes:
            self._refuse(
                f"Requests of {waiting_bytes / MIB:.1f} MiB are waiting, and with this one there would be more than "
                f"the {max_bytes / MIB:.1f} MiB that the queue admits."
            )

    def check_owner(self, owner: str, max_open: int | None) -> None:
        """Raises ``RateLimited``."""
        if max_open is not None and self._num_open[owner] >= max_open:
            raise RateLimited(
                f"{self._num_open[owner]} requests of this key are open, which is as many as it may have."
            )

    def count_opened(self, owner: str) -> None:
        self._num_open[owner] += 1

    def count_ended(self, owner: str) -> None:
        self._rate.count()
        self._num_open[owner] -= 1
        if not self._num_open[owner]:
            del self._num_open[owner]

    def _refuse(self, message: str) -> None:
        raise Overloaded(message, retry_after_s=self._rate.retry_after_s(len(self._dispatch)))
