"""How a job comes in: claimed, made, admitted, offered. A process may die between any two of these."""

import asyncio
from collections.abc import Awaitable, Callable

from broker.redis.images import Images
from broker.redis.logs import Logs
from broker.redis.owners import Owners
from broker.redis.queue import Queue
from broker.text_bytes import text_bytes
from contracts.errors import BrokerUnavailable, IdempotencyConflict, IlvrError
from contracts.jobs import Idempotency, Job

# A claim without a response is that of a process that is about to make one, or has died.
CLAIM_GRACE_S = 5.0
CLAIM_POLL_S = 0.05


class Submission:
    """The response exists before it is admitted, but nobody sees it; so an entry of the queue always has one."""

    def __init__(
        self,
        logs: Logs,
        queue: Queue,
        images: Images,
        owners: Owners,
        in_background: Callable[[Awaitable[None]], None],
    ) -> None:
        self._logs = logs
        self._queue = queue
        self._images = images
        self._owners = owners
        self._in_background = in_background

    async def submit(self, job: Job, idempotency: Idempotency | None, max_open: int | None) -> str:
        """As ``Broker.submit`` says."""
        while True:
            if idempotency is not None:
                known = await self._find_or_claim(job, idempotency)
                if known is not None:
                    return known
            key = idempotency.key if idempotency is not None else ""
            try:
                if await self._offer(job, idempotency, max_open):
                    return job.response_id
            except BrokerUnavailable:
                raise  # what there is of it now is for the sweeps
            except IlvrError:
                await self._undo(job, key)
                raise
            except asyncio.CancelledError:
                self._in_background(self._undo(job, key))
                raise
            if idempotency is None:
                raise BrokerUnavailable("The broker took too long. Try again shortly.")
            # This process was held up for so long that another one has taken the claim over, or Redis was emptied.

    async def _offer(self, job: Job, idempotency: Idempotency | None, max_open: int | None) -> bool:
        """Whether it could be made; not where this id was made void, or the claim is another's by now."""
        is_there, deadline_ms = await self._logs.create(job, idempotency.key if idempotency is not None else "")
        if not is_there:
            return False
        # Redis may have come back empty, without the claim, and this have been made in the new one. After this there is
        # no such gap: what is not in the Redis in which it was created cannot be opened.
        if idempotency is not None and await self._owners.claim(job.owner, idempotency, job.response_id) is not None:
            await self._logs.discard(job.response_id)
            return False
        image_ids = tuple(dict.fromkeys(image.id for image in job.images))
        num_bytes = text_bytes(job) + await self._images.pin(image_ids, job.response_id)
        position = await self._queue.admit(job, num_bytes, max_open, deadline_ms)
        if await self._logs.open(job.response_id, position):
            return True
        await self._queue.settle(job.response_id, has_ended=False)
        await self._images.unpin(image_ids, job.response_id)
        return False

    async def _undo(self, job: Job, key: str) -> None:
        """Nothing of it is kept. If a runner was faster it keeps its lease, for it has begun to work."""
        if await self._logs.discard(job.response_id):
            await self._queue.settle(job.response_id, has_ended=False)
            await self._images.unpin((image.id for image in job.images), job.response_id)
            if key:
                await self._owners.unclaim(job.owner, key, job.response_id)

    async def _find_or_claim(self, job: Job, idempotency: Idempotency) -> str | None:
        """The response that the key stands for; ``None``: from now on this job's. Raises ``IdempotencyConflict``."""
        while True:
            claim = await self._owners.claim(job.owner, idempotency, job.response_id)
            if claim is None:
                return None
            state = await self._logs.look(claim.response_id)
            is_there = state.status == "closed" or (state.status == "open" and state.is_visible)
            is_young = claim.age_s <= CLAIM_GRACE_S and state.status != "void"
            if (is_there or is_young) and not claim.is_same_body:
                raise IdempotencyConflict("This Idempotency-Key came with another request before; use a new key.")
            if is_there:
                return claim.response_id
            if is_young:
                await asyncio.sleep(CLAIM_POLL_S)
            elif await self._logs.void(claim.response_id):
                # Whoever claimed it cannot make it any more, even if he wakes up now.
                await self._owners.unclaim(job.owner, idempotency.key, claim.response_id)
