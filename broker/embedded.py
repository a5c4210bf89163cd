"""The broker inside the process: what ``ilvr serve`` uses, so that nothing else has to be installed.

One event loop, no lock: state changes only between two awaits. All memory is bounded by ``BrokerLimits``.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from broker.admission import Admission
from broker.buckets import TokenBuckets
from broker.dispatch import Dispatch
from broker.endings import cancelled, failed
from broker.finished import FinishedLogs
from broker.idempotency import IdempotencyKeys
from broker.images import ImageStore
from broker.limits import BrokerLimits
from broker.log import ResponseLog
from broker.runners import Runners
from broker.signal import Signal
from broker.text_bytes import text_bytes
from contracts.broker import LeaseLost, RunnerStatus
from contracts.errors import DeadlineExceeded, EngineDead, IlvrError, NotReady, ResponseNotFound
from contracts.events import Created, Event, Queued, Restarted
from contracts.jobs import Idempotency, ImageRef, Job, Lease, RateLimit, StoredImage

DEFAULT_LIMITS = BrokerLimits()
MAX_SWEEP_INTERVAL_S = 1.0


class EmbeddedBroker:
    """``contracts.broker.Broker`` in memory. ``clock`` counts seconds and never goes back."""

    def __init__(self, limits: BrokerLimits = DEFAULT_LIMITS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._images = ImageStore(limits, clock)
        self._keys = IdempotencyKeys()
        self._finished = FinishedLogs(limits, clock, on_forgotten=self._keys.forget_response)
        self._open: dict[str, ResponseLog] = {}
        self._dispatch = Dispatch()
        self._admission = Admission(limits, clock, self._dispatch)
        self._buckets = TokenBuckets(clock)
        self._runners = Runners(limits.runner_silence_s, clock)
        self._cancel_asked = Signal()
        self._is_closed = False
        self._housekeeper: asyncio.Task[None] | None = None

    async def put_image(self, image: StoredImage, *, owner: str = "") -> None:
        self._images.put(image, owner)

    async def get_image(self, image_id: str, *, owner: str | None = None) -> StoredImage:
        return self._images.get(image_id, owner)

    async def image_ref(self, image_id: str, *, owner: str | None = None) -> ImageRef:
        return self._images.get(image_id, owner).ref

    async def check_room(self, num_bytes: int, *, owner: str = "", idempotency_key: str | None = None) -> None:
        if idempotency_key is None or not self._keys.knows(owner, idempotency_key):
            self._admission.check_room(num_bytes, owner)

    async def spend(self, owner: str, limit: RateLimit, *, count: int = 1) -> None:
        self._buckets.spend(owner, limit, count)

    async def submit(self, job: Job, *, idempotency: Idempotency | None = None, max_open: int | None = None) -> str:
        if self._is_closed:
            raise NotReady("The server is stopping.")
        if idempotency is not None and (known := self._keys.find(job.owner, idempotency)) is not None:
            return known
        image_ids = [ref.id for ref in job.images]
        num_bytes = text_bytes(job) + self._images.num_bytes_of(image_ids)
        self._admission.check_owner(job.owner, max_open)
        self._admission.check_room(num_bytes, job.owner)
        self._admission.count_opened(job.owner)
        self._images.pin(image_ids)
        if idempotency is not None:
            self._keys.keep(job, idempotency)
        log = self._open[job.response_id] = ResponseLog(job, self._clock(), num_bytes)
        if job.timeout_s is not None:
            log.timer = asyncio.get_running_loop().call_later(job.timeout_s, self._end_overdue)
        events: list[Event] = [Created(response_id=job.response_id, model=job.model, images=job.images)]
        if self._dispatch.num_ahead >= 0:
            events.append(Queued(response_id=job.response_id, position=self._dispatch.position_for(job.owner)))
        log.append(events)
        self._dispatch.offer(log)
        if self._housekeeper is None:
            self._housekeeper = asyncio.create_task(self._keep_house(), name="broker housekeeping")
        return job.response_id

    async def job(self, response_id: str) -> Job:
        return self._log(response_id).job

    async def token_ids(self, response_id: str) -> tuple[int, ...] | None:
        return self._log(response_id).token_ids

    async def events(self, response_id: str) -> Sequence[Event]:
        return tuple(self._log(response_id).events)

    async def follow(self, response_id: str, *, starting_after: int = -1, deltas: bool = True) -> AsyncIterator[Event]:
        async for event in self._log(response_id).follow(starting_after, deltas=deltas):
            yield event

    async def cancel(self, response_id: str) -> None:
        log = self._log(response_id)
        if log.is_closed or log.is_cancel_asked:
            return
        log.is_cancel_asked = True
        if log.runner_id is None:
            self._dispatch.withdraw(log)
            self._end_cancelled(log)
        else:
            self._cancel_asked.notify()

    async def note_reading(self, response_ids: Sequence[str], *, reader: str, for_s: float) -> None:
        for response_id in response_ids:
            if (log := self._open.get(response_id)) is not None:
                log.read_until[reader] = self._clock() + for_s

    async def cancel_unread(self, response_id: str, *, reader: str) -> float:
        log = self._log(response_id)
        read_until = max((until for name, until in log.read_until.items() if name != reader), default=0.0)
        if log.is_closed or read_until <= self._clock():
            await self.cancel(response_id)
            return 0.0
        return read_until - self._clock()

    async def runners(self) -> Sequence[RunnerStatus]:
        return self._runners.statuses()

    async def take(self, runner_id: str, *, room: int) -> Sequence[Lease]:
        self._runners.hear(runner_id)
        logs = await self._dispatch.take(runner_id, room)
        self._runners.hear(runner_id)
        return [self._lease(log, runner_id) for log in logs]

    async def publish(
        self,
        lease: Lease,
        events: Sequence[Event],
        *,
        num_before: int | None = None,
        token_ids: Sequence[int] | None = None,
    ) -> None:
        log = self._leased(lease)
        new = events if num_before is None else events[max(log.num_of_lease - num_before, 0) :]
        if new:
            self._append(log, new, token_ids)
            log.num_of_lease += len(new)

    async def give_back(self, lease: Lease, *, is_lost: bool = False) -> None:
        log = self._leased(lease)
        log.num_given_back += not is_lost
        self._take_back(log, "The runner that worked on this response has stopped. Send the request again.")

    async def cancellations(self, runner_id: str) -> AsyncIterator[str]:
        told: set[tuple[str, int]] = set()
        while not self._is_closed:
            asked = {
                (response_id, log.attempt)
                for response_id, log in self._open.items()
                if log.is_cancel_asked and log.runner_id == runner_id
            }
            told &= asked
            if asked == told:
                await self._cancel_asked.wait()
            for response_id, attempt in asked - told:
                told.add((response_id, attempt))
                yield response_id

    async def heartbeat(self, status: RunnerStatus) -> None:
        self._runners.heartbeat(status)
        if not status.is_ready:
            self._dispatch.forget_room(status.runner_id)

    async def aclose(self) -> None:
        """Nothing outlives this broker, so every open response ends here: its followers are not left hanging."""
        self._is_closed = True
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            await asyncio.wait([self._housekeeper])
        for log in self._dispatch:
            self._dispatch.withdraw(log)
        for log in tuple(self._open.values()):
            self._end_failed(log, EngineDead("The server was stopped before it finished this response."))
        self._dispatch.close()
        self._cancel_asked.notify()

    def sweep(self) -> None:
        """Forget what is too old and end what nobody will finish. Runs by itself about once a second."""
        for runner_id in self._runners.forget_silent():
            self._dispatch.forget_runner(runner_id)
            for log in tuple(self._open.values()):
                if log.runner_id == runner_id:
                    self._take_back(log, "The runner that worked on this response is gone. Send the request again.")
        for log in self._dispatch:
            if self._clock() - max(self._runners.last_ready_at, log.submitted_at) > self._limits.no_runner_grace_s:
                self._dispatch.withdraw(log)
                self._end_failed(log, EngineDead("No runner is there to work on this response."))
        self._end_overdue()
        self._images.forget_expired()
        self._finished.forget_expired()
        self._buckets.forget_full()

    async def _keep_house(self) -> None:
        interval_s = min(MAX_SWEEP_INTERVAL_S, self._limits.runner_silence_s / 5)
        while True:
            slept_at = self._clock()
            await asyncio.sleep(interval_s)
            # If this task was kept from running, so were the heartbeats: nobody was silent, we were deaf.
            if self._clock() - slept_at < 2 * interval_s:
                self.sweep()

    def _log(self, response_id: str) -> ResponseLog:
        log = self._open.get(response_id) or self._finished.get(response_id)
        if log is None:
            raise ResponseNotFound(f"No response {response_id} is known (any more).")
        return log

    def _lease(self, log: ResponseLog, runner_id: str) -> Lease:
        log.runner_id = runner_id
        log.attempt += 1
        log.num_of_lease = 0
        if log.attempt > 1:
            log.append([Restarted(response_id=log.job.response_id, attempt=log.attempt)])
        time_left_s = None if log.job.timeout_s is None else max(log.deadline - self._clock(), 0.0)
        return Lease(job=log.job, attempt=log.attempt, queue_ms=self._age_ms(log), time_left_s=time_left_s)

    def _leased(self, lease: Lease) -> ResponseLog:
        """Its log; this is a sign of life. Raises ``LeaseLost``."""
        log = self._open.get(lease.job.response_id)
        if log is None or log.runner_id is None or log.attempt != lease.attempt:
            raise LeaseLost(lease.job.response_id)
        self._runners.hear(log.runner_id)
        return log

    def _take_back(self, log: ResponseLog, reason: str) -> None:
        """Another runner takes over if there is one and an attempt is left. ``reason``: why it fails otherwise."""
        runner_id, log.runner_id = log.runner_id, None
        num_lost = log.attempt - log.num_given_back
        if log.is_cancel_asked:
            self._end_cancelled(log)
        elif num_lost >= self._limits.max_attempts or not self._runners.is_any_ready(besides=runner_id):
            self._end_failed(log, EngineDead(reason))
        else:
            self._dispatch.offer(log, is_first=True)

    def _end_overdue(self) -> None:
        """What waits ends at its deadline; what runs is for its runner to end, who is given a moment for that."""
        now_s = self._clock()
        waiting = [log for log in self._dispatch if log.deadline <= now_s]
        for log in waiting:
            self._dispatch.withdraw(log)
        running = [log for log in self._open.values() if log.deadline + self._limits.deadline_slack_s <= now_s]
        for log in {log.job.response_id: log for log in (*waiting, *running)}.values():
            self._end_failed(log, DeadlineExceeded(f"This response was not finished within {log.job.timeout_s:g} s."))

    def _end_cancelled(self, log: ResponseLog) -> None:
        self._append(log, [cancelled(log.job, log.events, total_ms=self._age_ms(log))])

    def _end_failed(self, log: ResponseLog, error: IlvrError) -> None:
        self._append(log, [failed(log.job, log.events, error, total_ms=self._age_ms(log))])

    def _append(self, log: ResponseLog, events: Sequence[Event], token_ids: Sequence[int] | None = None) -> None:
        log.append(events)
        if log.is_closed:
            if token_ids is not None:
                log.keep_tokens(token_ids)
            if log.timer is not None:
                log.timer.cancel()
            del self._open[log.job.response_id]
            self._images.unpin(ref.id for ref in log.job.images)
            self._admission.count_ended(log.job.owner)
            self._finished.add(log)

    def _age_ms(self, log: ResponseLog) -> float:
        return round((self._clock() - log.submitted_at) * 1000, 3)
