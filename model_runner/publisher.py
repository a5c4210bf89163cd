"""What the holder of a lease tells the broker: events, deltas coalesced, or that it cannot go on."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from contracts.broker import Broker
from contracts.errors import BrokerUnavailable, ImageLost, ImageNotFound
from contracts.events import Event, StepDelta
from contracts.jobs import Lease, StoredImage

log = logging.getLogger(__name__)

T = TypeVar("T")

# At most 20 deltas a second and response; all else goes at once. Intervals begin at the same moments for all, so
# that deltas of the same step of the engine are sent together.
INTERVAL_S = 0.05
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Publisher:
    """For one lease. Deltas of the same step are joined while they wait.

    A broker that cannot be reached is asked again until it can be, or until :meth:`give_up`: a lease that was silently
    dropped would never end. Nothing piles up meanwhile, for who publishes waits. Cancelling a call loses nothing: what
    it was sending is sent again with the next one, and the broker knows it again.
    """

    def __init__(self, broker: Broker, lease: Lease) -> None:
        self._broker = broker
        self._lease = lease
        self._waiting: list[Event] = []
        self._sending: list[Event] = []  # maybe there already
        self._num_published = 0
        self._published_in = -1  # which interval
        self._given_up = asyncio.Event()

    async def publish(self, events: Sequence[Event], *, token_ids: Sequence[int] | None = None) -> None:
        """``token_ids`` go with the last events.

        Raises ``LeaseLost``, or ``BrokerUnavailable`` after :meth:`give_up`.
        """
        for event in events:
            last = self._waiting[-1] if self._waiting else None
            if isinstance(event, StepDelta) and isinstance(last, StepDelta) and event.index == last.index:
                self._waiting[-1] = _joined(last, event)
            else:
                self._waiting.append(event)
        interval = int(time.monotonic() / INTERVAL_S)
        can_wait = all(isinstance(event, StepDelta) for event in self._waiting)
        if not self._waiting or (can_wait and interval == self._published_in):
            return
        self._published_in = interval
        self._sending += self._waiting
        self._waiting = []
        await self._until_reached(
            lambda: self._broker.publish(
                self._lease, self._sending, num_before=self._num_published, token_ids=token_ids
            )
        )
        self._num_published += len(self._sending)
        self._sending = []

    async def give_back(self, *, is_lost: bool) -> None:
        """What was not sent yet is dropped. Raises as ``publish`` does."""
        await self._until_reached(lambda: self._broker.give_back(self._lease, is_lost=is_lost))

    async def get_image(self, image_id: str) -> StoredImage:
        """Raises ``ImageLost``, or ``BrokerUnavailable`` after :meth:`give_up`."""
        try:
            return await self._until_reached(lambda: self._broker.get_image(image_id))
        except ImageNotFound:  # but it was there when the job was accepted: a Redis came back empty
            raise ImageLost(
                "A picture of this request was lost. Send the request again, the picture with it."
            ) from None

    def give_up(self) -> None:
        """Ask a broker that cannot be reached no more."""
        self._given_up.set()

    async def _until_reached(self, call: Callable[[], Awaitable[T]]) -> T:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await call()
            except BrokerUnavailable as error:
                if self._given_up.is_set():
                    raise
                if pause_s == FIRST_PAUSE_S:  # not each time
                    log.warning("response %s: %s Trying again.", self._lease.job.response_id, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._given_up.wait()
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _joined(first: StepDelta, second: StepDelta) -> StepDelta:
    if isinstance(first.text, str) and isinstance(second.text, str):
        return StepDelta(response_id=second.response_id, index=second.index, text=first.text + second.text)
    return second
