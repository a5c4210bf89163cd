"""The runner: takes jobs when it has room, has them answered, tells the broker how it is."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from contracts.broker import Broker, RunnerStatus
from contracts.errors import BrokerUnavailable, EngineDead
from contracts.jobs import Lease
from contracts.responses import Response
from model_runner.attempt import Answering, Attempt
from model_runner.metrics import RunnerMetrics

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
UNHEARD_S = 5.0  # a heartbeat that did not reach the broker for so long is a reason not to be ready
ASK_ENGINE_S = 5.0
ENGINE_SILENCE_S = 60.0  # the engine answers between two steps; a step of a large model on a small CPU takes long
MAX_EARLY_CANCELS = 1024  # cancels heard before their lease; far more than can be on the way at once
STOPPING = "it is about to stop and takes no more work"
ENGINE_GONE = "the engine process is gone; restart the server"
ENGINE_SILENT = f"the engine has not answered for {ENGINE_SILENCE_S:.0f} s"


class Runner:
    """One engine's worth of work. :meth:`run` ends only when it is cancelled."""

    def __init__(
        self,
        *,
        runner_id: str,
        broker: Broker,
        tools: Answering,
        max_num_seqs: int,
        metrics: RunnerMetrics,
    ) -> None:
        self._id = runner_id
        self._broker = broker
        self._tools = tools
        self._engine = tools.engine
        self._max_num_seqs = max_num_seqs
        self._metrics = metrics
        metrics.max_in_flight.set(max_num_seqs)
        self._attempts: dict[asyncio.Task[Response | None], Attempt] = {}
        self._early_cancels: OrderedDict[str, None] = OrderedDict()
        self._has_room = asyncio.Event()
        self._taking: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[Sequence[Lease]] | None = None
        self._takes_jobs = True
        self._is_draining = False
        self._is_silent = False
        self._told: RunnerStatus | None = None
        self._told_at = 0.0

    async def run(self) -> NoReturn:
        """Work until cancelled; what is unfinished then is given back."""
        try:
            async with asyncio.TaskGroup() as group:
                self._taking = group.create_task(self._take_jobs())
                group.create_task(self._hear_cancellations())
                group.create_task(self._beat())
                group.create_task(self._ask_engine())
        finally:
            await self._give_back_all()
        raise AssertionError("the loops of a runner do not end by themselves")

    async def drain(self, grace_s: float) -> None:
        """Take no more work, let what runs finish for so long, then give the rest back. While :meth:`run` goes on."""
        self._is_draining = True
        self._stop_taking()
        await self._heartbeat()  # so that gateways and other runners know at once
        if self._taking is not None:
            await asyncio.wait([self._taking])  # a lease may have been on its way
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=grace_s)
        await self._give_back_all()

    def _stop_taking(self) -> None:
        self._takes_jobs = False
        if self._taking is not None:
            self._taking.cancel()  # which loses nothing

    async def _give_back_all(self) -> None:
        for attempt in self._attempts.values():
            attempt.stop("shutdown")
        await asyncio.gather(*self._attempts, return_exceptions=True)

    async def _take_jobs(self) -> None:
        while self._takes_jobs:
            room = 0 if self._is_silent else self._max_num_seqs - len(self._attempts)
            if room < 1:
                self._has_room.clear()
                await self._has_room.wait()
                continue
            for lease in await self._ask_for_jobs(room):
                self._begin(lease)

    async def _ask_for_jobs(self, room: int) -> Sequence[Lease]:
        """None if the engine falls silent before there are some: they are for a runner whose engine answers."""
        asking = self._asking = asyncio.create_task(self._broker.take(self._id, room=room))
        try:
            await asyncio.wait([asking])
        except asyncio.CancelledError:
            if not asking.cancel() and asking.exception() is None:
                for lease in asking.result():  # it came first; whoever stops this gives it back
                    self._begin(lease)
            raise
        finally:
            self._asking = None
        return () if asking.cancelled() else asking.result()

    def _begin(self, lease: Lease) -> None:
        attempt = Attempt(lease, self._broker, self._tools, self._heartbeat, self._metrics.text_gap.observe)
        if lease.job.response_id in self._early_cancels:
            del self._early_cancels[lease.job.response_id]
            attempt.stop("cancelled")
        task = asyncio.create_task(attempt.run(), name=f"answer {lease.job.response_id}")
        self._attempts[task] = attempt
        task.add_done_callback(partial(self._end, attempt))

    def _end(self, attempt: Attempt, task: asyncio.Task[Response | None]) -> None:
        del self._attempts[task]
        self._has_room.set()
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("response %s could not be ended", attempt.lease.job.response_id, exc_info=error)
        elif (response := task.result()) is not None:
            self._metrics.count(response)
        else:
            self._metrics.not_ended.inc()

    async def _hear_cancellations(self) -> None:
        async for response_id in self._broker.cancellations(self._id):
            wanted = [a for a in self._attempts.values() if a.lease.job.response_id == response_id]
            for attempt in wanted:
                attempt.stop("cancelled")
            if not wanted:
                self._early_cancels[response_id] = None
                if len(self._early_cancels) > MAX_EARLY_CANCELS:
                    self._early_cancels.popitem(last=False)

    async def announce(self) -> None:
        """Finish the engine's start and say how it is. Raises ``BadSettings`` if it cannot do what it was told to."""
        await self._engine.prepare()
        await self._heartbeat()

    def why_not_ready(self) -> str:
        """The reason in a few words; "" while the engine answers and the broker hears of it."""
        if self._told is None or time.monotonic() - self._told_at > UNHEARD_S:
            return "the broker does not hear of this runner"
        return self._told.detail

    async def _heartbeat(self) -> None:
        is_alive = await self._engine.is_alive()
        if not is_alive:
            self._stop_taking()  # or it would take again what it has just given back
        detail = self._why_not_able(is_alive)
        is_ready = not detail
        self._metrics.is_ready.set(is_ready)
        self._metrics.is_engine_alive.set(is_alive)
        self._metrics.in_flight.set(len(self._attempts))
        status = RunnerStatus(
            runner_id=self._id,
            model=self._tools.model_name,
            is_ready=is_ready,
            num_running=len(self._attempts),
            max_num_seqs=self._max_num_seqs,
            latent_size=self._tools.spec.size,
            latent_exit=self._tools.spec.rule,
            latent_ablation=self._engine.latent_ablation,
            engine=self._engine.name,
            detail=detail,
        )
        try:
            await self._broker.heartbeat(status)
        except BrokerUnavailable as error:
            log.warning("the broker does not hear of this runner: %s", error)
            return
        self._told, self._told_at = status, time.monotonic()
        self._metrics.heard_at.set_to_current_time()

    def _why_not_able(self, is_alive: bool) -> str:
        if not is_alive:
            return ENGINE_GONE
        return STOPPING if self._is_draining else ENGINE_SILENT if self._is_silent else ""

    async def _beat(self) -> None:
        while True:
            await self._heartbeat()
            await asyncio.sleep(HEARTBEAT_S)

    async def _ask_engine(self) -> None:
        """Whether it answers at all, and what it has counted. Apart from the heartbeat, which must not wait for it."""
        while True:
            try:
                async with asyncio.timeout(ENGINE_SILENCE_S):
                    stats = await self._engine.stats()
            except TimeoutError:
                self._is_silent = True
                if self._asking is not None:
                    self._asking.cancel()
            except EngineDead:
                pass  # is_alive says so
            else:
                self._is_silent = False
                self._has_room.set()
                self._metrics.engine.set({**stats.model, "preemptions": stats.num_preemptions})
            await asyncio.sleep(ASK_ENGINE_S)
