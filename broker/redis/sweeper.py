"""What every process does about once a second, so that nothing is left over from one that died.

Any number of processes sweep; whatever two of them find at once happens once. Only the clock of Redis counts.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from broker.limits import BrokerLimits
from broker.redis.ending import NO_RUNNER, RUNNER_GONE, Ending
from broker.redis.images import Images
from broker.redis.logs import Logs
from broker.redis.owners import Owners
from broker.redis.queue import Held, Offered, Queue
from contracts.errors import BrokerUnavailable

log = logging.getLogger(__name__)

MAX_INTERVAL_S = 1.0
# For how long a runner may have a job that it has not leased, and a pin may have no response: both are made in two
# steps, of which the process may be held up between.
SETTLING_S = 10.0


class Sweeper:
    def __init__(
        self, logs: Logs, queue: Queue, images: Images, owners: Owners, ending: Ending, limits: BrokerLimits
    ) -> None:
        self._logs = logs
        self._queue = queue
        self._images = images
        self._owners = owners
        self._ending = ending
        self._interval_s = min(MAX_INTERVAL_S, limits.runner_silence_s / 5, limits.no_runner_grace_s / 5)
        self._image_ttl_s = limits.image_ttl_s
        self._jobs_cursor = "0"
        self._pins_cursor = "0"
        self._orphans: dict[tuple[str, str], float] = {}
        self._kept_at: dict[str, float] = {}
        self._walked: set[tuple[str, str]] = set()  # pins that this round has come by
        self._is_due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def look_in(self, seconds: float) -> None:
        """A deadline may be up then, and should not wait for the next sweep. Only the earliest is waited for; when it
        has come, Redis says which is the next one of a job that is still open."""
        loop = asyncio.get_running_loop()
        due_at = loop.time() + seconds + 0.002
        if self._timer is None or due_at < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(due_at, self._ring)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time() + self._interval_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(sweep_at):
                    await self._is_due.wait()
            try:
                if self._is_due.is_set():
                    self._is_due.clear()
                    await self._end_overdue()
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + self._interval_s
                    await self.sweep()
            except BrokerUnavailable:
                continue  # the link has said so
            except Exception:
                # A defect, and no reason to let all other jobs down: without sweeps the work of a dead runner is lost.
                log.exception("a sweep failed; the next one follows")

    async def sweep(self, *, is_hurry: bool = False) -> None:
        """Raises ``BrokerUnavailable``."""
        # A little less than the interval, so that this process is not too early for itself.
        found = await self._queue.sweep(interval_s=self._interval_s * 0.8, is_hurry=is_hurry)
        if found is None:
            return
        for held in found.lost:
            await self._ending.take_back(held, RUNNER_GONE)
        for offered in found.unserved:
            await self._ending.fail(offered.response_id, NO_RUNNER, epoch=offered.epoch)
        await self._fail_overdue(found.overdue)
        await self._walk_jobs()
        await self._walk_images()

    def _ring(self) -> None:
        self._timer = None
        self._is_due.set()

    async def _end_overdue(self) -> None:
        """Raises ``BrokerUnavailable``; then the sweeps that follow do it."""
        overdue, next_in_s = await self._queue.overdue()
        if next_in_s is not None:
            self.look_in(next_in_s)
        await self._fail_overdue(overdue)

    async def _fail_overdue(self, overdue: Sequence[tuple[Offered, bool]]) -> None:
        for offered, waits in overdue:
            await self._ending.fail_overdue(offered.response_id, epoch=offered.epoch if waits else None)

    async def _walk_jobs(self) -> None:
        """Mend what was left half done, and keep alive what is open."""
        self._jobs_cursor, page = await self._queue.walk(self._jobs_cursor)
        for held in page:
            await self._mend(held)

    async def _mend(self, held: Held) -> None:
        state = await self._logs.look(held.response_id)
        if state.status != "open" or state.job is None:
            await self._ending.settle(held.response_id)
            return
        if state.claimed_key:
            await self._owners.keep(state.job.owner, state.claimed_key, held.response_id)
        if not held.runner_id:
            if state.is_cancel_asked:
                await self._ending.cancel(held.response_id, epoch=held.epoch)
            return
        if not held.is_runner_known:
            await self._ending.take_back(held, RUNNER_GONE)
        elif state.epoch == held.epoch and held.for_s > SETTLING_S:
            await self._ending.put_back(held, "unused")
        elif state.is_cancel_asked:
            await self._queue.ask_runner(held.response_id)

    async def _walk_images(self) -> None:
        self._pins_cursor, pins = await self._images.sweep(self._pins_cursor)
        self._walked.update(pins)
        now_s = time.monotonic()
        for image_id, response_id in pins:
            if (await self._logs.look(response_id)).status == "open":
                self._orphans.pop((image_id, response_id), None)
                if now_s - self._kept_at.get(image_id, 0.0) > self._image_ttl_s / 4:
                    self._kept_at[image_id] = now_s
                    await self._images.keep_file(image_id)
            elif now_s - self._orphans.setdefault((image_id, response_id), now_s) > SETTLING_S:
                del self._orphans[image_id, response_id]
                await self._images.unpin([image_id], response_id)
        if self._pins_cursor == "0":  # a round is over: of a pin that it has not come by nothing need be known
            pinned = {image_id for image_id, _ in self._walked}
            self._kept_at = {image_id: at_s for image_id, at_s in self._kept_at.items() if image_id in pinned}
            self._orphans = {pin: at_s for pin, at_s in self._orphans.items() if pin in self._walked}
            self._walked = set()
