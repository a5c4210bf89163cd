"""How long to wait before trying again, and when to stop."""

import random
from dataclasses import dataclass, field

from contracts.errors import CapacityError, IlvrError

FIRST_WAIT_S = 0.25
MAX_WAIT_S = 8.0


@dataclass(frozen=True, slots=True)
class Patience:
    """``max_retries`` in a row, none of them after more than ``max_wait_s``."""

    max_retries: int = 5
    max_wait_s: float = 60.0


@dataclass(slots=True)
class Retries:
    """Of one request. What got through resets the count: a long stream may break off often."""

    patience: Patience
    _num_failed: int = field(default=0, init=False)

    def succeeded(self) -> None:
        self._num_failed = 0

    def wait_s(self, error: IlvrError) -> float:
        """Seconds to wait after this error, doubling, with jitter, and no less than the server asked for.

        Raises the error where trying again cannot help, would take too long, or was tried often enough.
        """
        least_s = error.retry_after_s if isinstance(error, CapacityError) else 0
        is_hopeless = not error.is_retryable or least_s > self.patience.max_wait_s
        if is_hopeless or self._num_failed >= self.patience.max_retries:
            raise error
        wait_s = min(FIRST_WAIT_S * 2.0**self._num_failed, MAX_WAIT_S) * random.uniform(0.5, 1.0)
        self._num_failed += 1
        return max(wait_s, least_s)
