"""How a response ends or moves on when no runner says so, and what has to be freed then."""

import logging
from collections.abc import Sequence

from broker.endings import cancelled, failed
from broker.redis.images import Images
from broker.redis.logs import Logs, Released, ReleaseKind
from broker.redis.owners import Owners
from broker.redis.queue import Held, Queue
from contracts.errors import BrokerUnavailable, DeadlineExceeded, EngineDead, IlvrError
from contracts.events import Event
from contracts.jobs import Job

log = logging.getLogger(__name__)

GIVEN_BACK = "The server is stopping before it could finish this response. Send the request again."
RUNNER_GONE = "The runner that worked on this response is gone."
NO_RUNNER = "No runner is there to work on this response."
LOG_LOST = "A restart of Redis has lost a part of this response. Send the request again."


class Ending:
    def __init__(
        self, logs: Logs, queue: Queue, images: Images, owners: Owners, *, max_attempts: int, keep_finished_s: float
    ) -> None:
        self._logs = logs
        self._queue = queue
        self._images = images
        self._owners = owners
        self._max_attempts = max_attempts
        self._keep_finished_s = keep_finished_s

    async def cancel(self, response_id: str, *, epoch: int | None = None) -> None:
        """It ends cancelled, unless it has moved on since ``epoch``, or has ended."""

        def make(job: Job, events: Sequence[Event], age_ms: float) -> Event:
            return cancelled(job, events, total_ms=age_ms)

        await self._finish(response_id, await self._logs.end(response_id, make, epoch=epoch))

    async def fail(self, response_id: str, reason: IlvrError | str, *, epoch: int | None = None) -> None:
        """As ``cancel``, with ``response.failed``."""
        error = reason if isinstance(reason, IlvrError) else EngineDead(reason)

        def make(job: Job, events: Sequence[Event], age_ms: float) -> Event:
            return failed(job, events, error, total_ms=age_ms)

        await self._finish(response_id, await self._logs.end(response_id, make, epoch=epoch))

    async def fail_overdue(self, response_id: str, *, epoch: int | None = None) -> None:
        def make(job: Job, events: Sequence[Event], age_ms: float) -> Event:
            error = DeadlineExceeded(f"This response was not finished within {job.timeout_s:g} s.")
            return failed(job, events, error, total_ms=age_ms)

        await self._finish(response_id, await self._logs.end(response_id, make, epoch=epoch))

    async def take_back(self, held: Held, reason: str, *, how: ReleaseKind = "lost") -> bool:
        """From a runner that is gone or gives it back. Another one takes over if there is one and an attempt is left.

        Returns whether it was this runner's. May be called again, and by several at once.
        """
        released = await self._logs.release(held.response_id, held.runner_id, held.epoch, how)
        if released == "gone":
            await self.settle(held.response_id)
        if not isinstance(released, Released):
            return False
        if released.is_cancel_asked:
            await self.cancel(held.response_id, epoch=released.epoch)
        elif released.num_lost >= self._max_attempts or not await self._queue.is_any_ready(besides=held.runner_id):
            await self.fail(held.response_id, reason, epoch=released.epoch)
        else:
            await self._queue.reoffer(held, released.epoch)
        return True

    async def put_back(self, held: Held, how: ReleaseKind) -> None:
        """What a runner has without knowing of it waits again."""
        released = await self._logs.release(held.response_id, held.runner_id, held.epoch, how)
        if isinstance(released, Released):
            await self._queue.reoffer(held, released.epoch)

    async def settle(self, response_id: str, job: Job | None = None, claimed_key: str = "") -> None:
        """Free what an ended response held. Where this cannot be done now, a sweep does it later."""
        try:
            image_ids = await self._queue.settle(response_id)
            await self._images.unpin(image_ids or (), response_id)
            if job is not None and claimed_key:
                await self._owners.keep(job.owner, claimed_key, response_id, for_s=self._keep_finished_s)
        except BrokerUnavailable:
            log.warning("response %s has ended; what it held is freed when Redis is there again", response_id)

    async def _finish(self, response_id: str, ended: tuple[Job, str] | None) -> None:
        if ended is not None:
            await self.settle(response_id, *ended)
