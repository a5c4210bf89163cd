"""The runner's side: what the runners of this process have taken and not ended yet."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from broker.log import TERMINAL_TYPES
from broker.redis.ending import LOG_LOST, Ending
from broker.redis.logs import Appended, Logs
from broker.redis.queue import Held, Offered, Queue, new_token
from contracts.broker import LeaseLost
from contracts.errors import BrokerUnavailable
from contracts.events import Event
from contracts.jobs import Lease

log = logging.getLogger(__name__)

COMPARE_EVERY_S = 5.0
COMPARE_AFTER_S = 10.0  # a job that was taken for so long is leased, or the call that took it is gone
SERVED_S = 60.0
MS = 1000


@dataclass(slots=True)
class Own:
    """A lease. ``num_events``: of its log, as far as this process knows."""

    held: Held
    num_events: int

    @property
    def epoch(self) -> int:
        """Of the response while it is leased."""
        return self.held.epoch + 1


class Leases:
    def __init__(
        self, logs: Logs, queue: Queue, ending: Ending, in_background: Callable[[Awaitable[None]], None]
    ) -> None:
        self._logs = logs
        self._queue = queue
        self._ending = ending
        self._in_background = in_background
        self._own: dict[tuple[str, int], Own] = {}
        self._served_at: dict[str, float] = {}

    def serve(self, runner_id: str) -> None:
        """A runner of this process has called."""
        self._served_at[runner_id] = time.monotonic()

    async def take(self, runner_id: str, room: int) -> tuple[Sequence[Lease], float | None]:
        """Leases there are now; if none, in how many seconds to look again, where that is known.

        If it is cancelled or fails, what it took waits again. Raises ``BrokerUnavailable``.
        """
        self.serve(runner_id)
        token = new_token()
        taken: dict[str, Lease] = {}
        try:
            offered, look_again_s = await self._queue.take(runner_id, room, token)
            leasing = (self._lease(runner_id, each, taken) for each in offered)
            for failed in await asyncio.gather(*leasing, return_exceptions=True):  # all end, also if this is cancelled
                if failed is not None:
                    raise failed
        except BaseException:
            for lease in taken.values():
                del self._own[_key(lease)]
            self._in_background(self._untake(runner_id, token))
            raise
        leases = [taken[each.response_id] for each in offered if each.response_id in taken]
        return leases, 0.0 if offered and not leases else look_again_s

    async def withdraw(self, leases: Sequence[Lease]) -> None:
        """Of a call that cannot hand them out any more."""
        held = [self.remove(lease).held for lease in leases]  # all, for what cannot be given back now is for the sweeps
        for each in held:
            await self._ending.put_back(each, "unused")

    def find(self, lease: Lease) -> Own:
        """Raises ``LeaseLost``."""
        own = self._own.get(_key(lease))
        if own is None:
            raise LeaseLost(lease.job.response_id)
        return own

    def remove(self, lease: Lease) -> Own:
        """Raises ``LeaseLost``."""
        own = self.find(lease)
        del self._own[_key(lease)]
        return own

    async def publish(
        self, lease: Lease, events: Sequence[Event], num_before: int | None, token_ids: Sequence[int] | None
    ) -> None:
        """Raises ``LeaseLost``, ``BrokerUnavailable``."""
        own = self.find(lease)
        response_id = lease.job.response_id
        answer = await self._logs.append(
            response_id, own.epoch, own.num_events, events, num_before=num_before, token_ids=token_ids
        )
        if isinstance(answer, Appended):
            own.num_events = answer.num_events
            if events and isinstance(events[-1], TERMINAL_TYPES):
                self._own.pop(_key(lease), None)
                await self._ending.settle(response_id, lease.job, answer.claimed_key)
            return
        self._own.pop(_key(lease), None)
        if answer == "behind":
            await self._ending.fail(response_id, LOG_LOST, epoch=own.epoch)
        raise LeaseLost(response_id)

    async def run(self) -> None:
        """Until cancelled: now and then compare what Redis says that the runners have with what they have.

        They differ after a Redis was restored to an earlier time, or when a call died between two steps.
        """
        while True:
            await asyncio.sleep(COMPARE_EVERY_S)
            for runner_id in self._served():
                try:
                    await self._compare(runner_id)
                except BrokerUnavailable:
                    break
                except Exception:
                    log.exception("what %s has could not be compared; this is tried again", runner_id)

    async def _compare(self, runner_id: str) -> None:
        held = await self._queue.held(runner_id, for_s=COMPARE_AFTER_S)
        own = {(each.held.response_id, each.held.epoch) for each in self._own.values()}
        for each in held:
            if (each.response_id, each.epoch) not in own:
                await self._ending.put_back(each, "given")

    async def farewell(self) -> None:
        """No runner of this process works on anything any more."""
        for runner_id in self._served_at:
            await self._queue.farewell(runner_id)

    def _served(self) -> list[str]:
        now_s = time.monotonic()
        self._served_at = {name: at for name, at in self._served_at.items() if now_s - at < SERVED_S}
        return list(self._served_at)

    async def _lease(self, runner_id: str, offered: Offered, taken: dict[str, Lease]) -> None:
        response_id, epoch = offered.response_id, offered.epoch
        found = await self._logs.lease(response_id, runner_id, epoch)
        if not isinstance(found, str):
            lease = taken[response_id] = Lease(
                job=found.job, attempt=found.attempt, queue_ms=float(found.age_ms), time_left_s=found.time_left_s
            )
            self._own[_key(lease)] = Own(Held(response_id, epoch, runner_id), found.num_events)
        elif found == "over":
            await self._ending.settle(response_id)
        elif found == "cancelled":
            await self._ending.cancel(response_id, epoch=epoch)
        elif found == "overdue":
            await self._ending.fail_overdue(response_id, epoch=epoch)

    async def _untake(self, runner_id: str, token: str) -> None:
        for offered in await self._queue.untake(runner_id, token):
            await self._ending.put_back(Held(offered.response_id, offered.epoch, runner_id), "unused")


def _key(lease: Lease) -> tuple[str, int]:
    return lease.job.response_id, lease.attempt
