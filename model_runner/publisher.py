"""Events on their way to the broker, deltas coalesced."""

import time
from collections.abc import Sequence

from contracts.broker import Broker
from contracts.events import Event, StepDelta
from contracts.jobs import Lease

MIN_INTERVAL_S = 0.05  # at most about 20 deltas a second and response; all else is published at once


class Publisher:
    """For one lease. Deltas of the same step are joined while they wait."""

    def __init__(self, broker: Broker, lease: Lease) -> None:
        self._broker = broker
        self._lease = lease
        self._waiting: list[Event] = []
        self._published_at = 0.0

    async def publish(self, events: Sequence[Event]) -> None:
        """Raises ``LeaseLost``."""
        for event in events:
            last = self._waiting[-1] if self._waiting else None
            if isinstance(event, StepDelta) and isinstance(last, StepDelta) and event.index == last.index:
                self._waiting[-1] = _joined(last, event)
            else:
                self._waiting.append(event)
        now = time.monotonic()
        can_wait = all(isinstance(event, StepDelta) for event in self._waiting)
        if not self._waiting or (can_wait and now - self._published_at < MIN_INTERVAL_S):
            return
        self._published_at = now
        waiting, self._waiting = self._waiting, []
        await self._broker.publish(self._lease, waiting)


def _joined(first: StepDelta, second: StepDelta) -> StepDelta:
    if isinstance(first.text, str) and isinstance(second.text, str):
        return StepDelta(response_id=second.response_id, index=second.index, text=first.text + second.text)
    return second
