"""The broker on Redis. Gateways and runners each have one of these; all that they share lies in Redis."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence

from broker.log import TERMINAL_TYPES, check_events
from broker.redis.ending import GIVEN_BACK, Ending
from broker.redis.following import LOST, follow
from broker.redis.images import Images
from broker.redis.keys import Keys
from broker.redis.leases import Leases
from broker.redis.link import Link
from broker.redis.logs import Asked, Logs
from broker.redis.owners import Owners
from broker.redis.queue import Queue
from broker.redis.submission import Submission
from broker.redis.sweeper import Sweeper
from broker.redis.wakeups import POLL_S, Told, Wakeups
from broker.settings import BrokerSettings
from contracts.broker import SAY_AGAIN_S, BrokerClosed, LeaseLost, RunnerStatus
from contracts.errors import BrokerUnavailable, NotReady
from contracts.events import Event
from contracts.jobs import Idempotency, ImageRef, Job, Lease, RateLimit, StoredImage

log = logging.getLogger(__name__)

CLOSE_S = 3.0
UNHEARD_S = 2 * SAY_AGAIN_S  # after an outage: a word in time, and another one should that be lost
NOTED_AT_ONCE = 16  # one after the other, the last of many readers would be heard of after its grace


class RedisBroker:
    """``contracts.broker.Broker``. Make it inside a running loop; close it.

    A lease is good only on the object that it was taken from.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        limits, ttl_s = settings.limits(), settings.redis_ttl_s
        keys = Keys(settings.key_prefix)
        self._keys = keys
        self._link = link = Link(settings)
        self._logs = Logs(link, keys, ttl_s=ttl_s, keep_finished_s=limits.keep_finished_s)
        self._queue = Queue(link, keys, limits, ttl_s=ttl_s, affinity_s=settings.redis_affinity_s)
        self._images = Images(link, keys, limits, ttl_s=ttl_s)
        self._owners = Owners(link, keys, ttl_s=ttl_s)
        self._ending = Ending(
            self._logs,
            self._queue,
            self._images,
            self._owners,
            max_attempts=limits.max_attempts,
            keep_finished_s=limits.keep_finished_s,
        )
        self._submission = Submission(self._logs, self._queue, self._images, self._owners, self._in_background)
        self._wakeups = Wakeups(link)
        self._listening = contextlib.AsyncExitStack()
        self._jobs: Told | None = None  # from the first take on: who takes once takes again
        self._leases = Leases(self._logs, self._queue, self._ending, self._in_background)
        self._sweeper = Sweeper(self._logs, self._queue, self._images, self._owners, self._ending, limits)
        self._background: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._services = [
            asyncio.create_task(self._sweeper.run(), name="broker sweeps"),
            asyncio.create_task(self._leases.run(), name="broker leases"),
        ]

    async def put_image(self, image: StoredImage, *, owner: str = "") -> None:
        await self._images.put(image, owner)

    async def get_image(self, image_id: str, *, owner: str | None = None) -> StoredImage:
        return await self._images.get(image_id, owner)

    async def image_ref(self, image_id: str, *, owner: str | None = None) -> ImageRef:
        return await self._images.ref(image_id, owner)

    async def check_room(self, num_bytes: int, *, owner: str = "", idempotency_key: str | None = None) -> None:
        if idempotency_key is None or await self._owners.claimed(owner, idempotency_key) is None:
            await self._queue.check_room(num_bytes, owner)

    async def spend(self, owner: str, limit: RateLimit, *, count: int = 1) -> None:
        await self._owners.spend(owner, limit, count)

    async def submit(self, job: Job, *, idempotency: Idempotency | None = None, max_open: int | None = None) -> str:
        if self._is_closed:
            raise NotReady("The server is stopping.")
        response_id = await self._submission.submit(job, idempotency, max_open)
        if job.timeout_s is not None and response_id == job.response_id:
            self._sweeper.look_in(job.timeout_s)
        return response_id

    async def job(self, response_id: str) -> Job:
        return await self._logs.job(response_id)

    async def token_ids(self, response_id: str) -> tuple[int, ...] | None:
        return await self._logs.token_ids(response_id)

    async def events(self, response_id: str) -> Sequence[Event]:
        events = tuple([event async for event in self._logs.pages(response_id)])
        # A log without its beginning tells the answer only if it has its end.
        if events and events[-1].sequence_number >= len(events) and not isinstance(events[-1], TERMINAL_TYPES):
            raise BrokerUnavailable(LOST)
        return events

    async def follow(self, response_id: str, *, starting_after: int = -1, deltas: bool = True) -> AsyncIterator[Event]:
        position = max(starting_after + 1, 0)
        events = follow(
            self._logs, self._wakeups, response_id, position, deltas=deltas, is_closed=lambda: self._is_closed
        )
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def cancel(self, response_id: str) -> None:
        await self._pass_on(response_id, await self._logs.ask_cancel(response_id))

    async def note_reading(self, response_ids: Sequence[str], *, reader: str, for_s: float) -> None:
        for first in range(0, len(response_ids), NOTED_AT_ONCE):
            noted = response_ids[first : first + NOTED_AT_ONCE]
            await asyncio.gather(*(self._logs.note_reading(one, reader, for_s) for one in noted))

    async def cancel_unread(self, response_id: str, *, reader: str) -> float:
        # While Redis is away words run out and nobody can say them again; that is no reason to end what is read.
        unheard_s = UNHEARD_S - self._link.good_for_s
        if unheard_s > 0:
            return unheard_s
        asked = await self._logs.cancel_unread(response_id, reader)
        await self._pass_on(response_id, asked)
        return asked.read_for_s

    async def runners(self) -> Sequence[RunnerStatus]:
        return tuple(await self._queue.runners())

    async def take(self, runner_id: str, *, room: int) -> Sequence[Lease]:
        if room < 1:
            raise ValueError(f"a runner takes when it has room, not with room for {room}")
        if self._is_closed:
            raise BrokerClosed
        leases: Sequence[Lease] = ()
        try:
            if self._jobs is None:
                self._jobs = await self._listening.enter_async_context(self._wakeups.listening(self._keys.jobs))
            while not self._is_closed and not leases:
                num_told = self._jobs.num_told
                look_again_s: float | None = None
                with contextlib.suppress(BrokerUnavailable):
                    leases, look_again_s = await self._leases.take(runner_id, room)
                if not leases:
                    await self._jobs.wait_beyond(num_told, at_most_s=POLL_S if look_again_s is None else look_again_s)
            if self._is_closed:
                raise BrokerClosed
        except BaseException:  # it may be cancelled in its last step too, when nobody else knows of what it took
            if leases:
                self._in_background(self._leases.withdraw(leases))
            raise
        return leases

    async def publish(
        self,
        lease: Lease,
        events: Sequence[Event],
        *,
        num_before: int | None = None,
        token_ids: Sequence[int] | None = None,
    ) -> None:
        self._leases.find(lease)
        check_events(lease.job.response_id, events)
        await self._leases.publish(lease, events, num_before, token_ids)

    async def give_back(self, lease: Lease, *, is_lost: bool = False) -> None:
        own = self._leases.find(lease)
        is_own = await self._ending.take_back(own.held, GIVEN_BACK, how="lost" if is_lost else "given")
        self._leases.remove(lease)
        if not is_own:
            raise LeaseLost(lease.job.response_id)

    async def cancellations(self, runner_id: str) -> AsyncIterator[str]:
        told: set[str] = set()
        async with self._wakeups.listening(self._keys.cancels) as channel:
            while not self._is_closed:
                num_told = channel.num_told
                try:
                    asked = await self._queue.asked(runner_id)
                except BrokerUnavailable:
                    asked = told
                told &= asked
                for response_id in asked - told:
                    told.add(response_id)
                    yield response_id
                await channel.wait_beyond(num_told)

    async def heartbeat(self, status: RunnerStatus) -> None:
        self._leases.serve(status.runner_id)
        await self._queue.heartbeat(status)

    async def aclose(self) -> None:
        """What is open stays open, for others."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wakeups.tell_all()
        await asyncio.sleep(0)  # who waits for work ends now, and may have some to give back
        for service in self._services:
            service.cancel()
        await asyncio.wait(self._services)
        if self._background:
            await asyncio.wait(self._background, timeout=CLOSE_S)
        with contextlib.suppress(BrokerUnavailable):
            await self._leases.farewell()
        await self._wakeups.aclose()
        await self._listening.aclose()
        await self._link.aclose()

    async def _pass_on(self, response_id: str, asked: Asked) -> None:
        """The wish for an end to whom it concerns."""
        if asked.found == "waiting":
            await self._ending.cancel(response_id, epoch=asked.epoch)
        elif asked.found == "running":
            await self._queue.ask_runner(response_id)

    def _in_background(self, work: Awaitable[None]) -> None:
        """What a cancelled call has left to do."""

        async def do() -> None:
            try:
                await work
            except BrokerUnavailable:
                log.warning("what a cancelled call has left is for the sweeps: Redis is away")

        task = asyncio.create_task(do())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
