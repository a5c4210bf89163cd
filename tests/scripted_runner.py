"""The test double of ``model_runner``: takes jobs from a broker and publishes what a script says.

Tests steer it: ``pause`` holds it before the next event, ``fail_with`` makes it fail, ``lose_engine`` ends everything
as a dead engine does, ``vanish`` makes it silent without a word.
"""

import asyncio
from collections.abc import MutableSequence, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

import msgspec

from contracts.broker import Broker, LeaseLost, RunnerStatus
from contracts.errors import DeadlineExceeded, EngineDead, IlvrError
from contracts.events import (
    Cancelled,
    Completed,
    Event,
    Failed,
    Incomplete,
    InProgress,
    StepDelta,
    StepStarted,
    completed_event,
    fold,
)
from contracts.jobs import Job, Lease
from contracts.responses import FinishReason, LatentStep, Response, Status, Step, TextStep, Timings, Usage, error_info

MODEL = "scripted"
STEPS: tuple[Step, ...] = (
    TextStep(index=0, text="Holes: second row.\nLet me "),
    LatentStep(index=1, size=8, exit="full", duration_ms=3.5),
    TextStep(index=2, text=" So the path is \\boxed{RRDD} ✓"),
)
ANSWER = "RRDD"


class ScriptedRunner:
    """``jobs`` are all it was given. ``delay_s`` passes before every event."""

    def __init__(self, broker: Broker, *, runner_id: str = "r1", room: int = 4, heartbeat_s: float = 0.2) -> None:
        self._broker = broker
        self._runner_id = runner_id
        self._room = room
        self._heartbeat_s = heartbeat_s
        self._working: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(room)
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()
        self._services: list[asyncio.Task[None]] = []
        self.jobs: MutableSequence[Job] = []
        self.steps: Sequence[Step] = STEPS
        self.answer: str | None = ANSWER
        self.token_ids: Sequence[int] | None = (7, 8, 9)
        self.ending: Literal["completed", "incomplete"] = "completed"
        self.fail_with: IlvrError | None = None
        self.delay_s = 0.0
        self.is_ready = True
        self.detail = ""
        self.latent_ablation = "none"

    @property
    def num_working(self) -> int:
        return len(self._working)

    async def start(self) -> None:
        await self.beat()
        self._services = [asyncio.create_task(work()) for work in (self._heartbeats, self._take, self._cancel)]

    def pause(self) -> None:
        self._may_go_on.clear()

    def resume(self) -> None:
        self._may_go_on.set()

    async def lose_engine(self) -> None:
        """As the real runner does: unready first, then every open response ends with ``response.failed``."""
        self.fail_with, self.is_ready, self.detail = EngineDead("The engine process died."), False, "the engine died"
        await self.beat()
        await self._stop(list(self._working.values()))

    async def vanish(self) -> None:
        """The whole process is gone, with no last word."""
        for task in self._working.values():
            task.set_name("vanished")
        await self._stop([*self._services, *self._working.values()])

    async def aclose(self) -> None:
        await self.vanish()

    async def beat(self) -> None:
        await self._broker.heartbeat(
            RunnerStatus(
                runner_id=self._runner_id,
                model=MODEL,
                is_ready=self.is_ready,
                num_running=self.num_working,
                max_num_seqs=self._room,
                latent_size=8,
                latent_exit="learned",
                latent_ablation=self.latent_ablation,
                engine="scripted 1.0",
                detail=self.detail,
            )
        )

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await self.beat()

    async def _take(self) -> None:
        while True:
            await self._slots.acquire()
            (lease,) = await self._broker.take(self._runner_id, room=1)
            self.jobs.append(lease.job)
            task = asyncio.create_task(self._work(lease), name=lease.job.response_id)
            self._working[lease.job.response_id] = task
            task.add_done_callback(partial(self._done, lease.job.response_id))

    def _done(self, response_id: str, _: "asyncio.Task[None]") -> None:
        del self._working[response_id]
        self._slots.release()

    async def _cancel(self) -> None:
        async for response_id in self._broker.cancellations(self._runner_id):
            if response_id in self._working:
                self._working[response_id].cancel()

    async def _work(self, lease: Lease) -> None:
        job, done = lease.job, []
        with suppress(LeaseLost):
            try:
                async with asyncio.timeout(lease.time_left_s):
                    await self._say(
                        lease, InProgress(response_id=job.response_id, queue_ms=lease.queue_ms, cached_tokens=0)
                    )
                    for step in self.steps:
                        for event in _events_of(job.response_id, step):
                            await self._say(lease, event)
                        done.append(step)
                    if self.fail_with:
                        raise self.fail_with
                    await self._say(lease, self._end(job, done), token_ids=self.token_ids)
            except TimeoutError:
                await self._broker.publish(lease, [_failed(job, done, DeadlineExceeded("It took too long."))])
            except IlvrError as error:
                await self._broker.publish(lease, [_failed(job, done, error)])
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.get_name() == "vanished":
                    raise
                end: Event = _cancelled(job, done) if self.fail_with is None else _failed(job, done, self.fail_with)
                await self._broker.publish(lease, [end])

    async def _say(self, lease: Lease, event: Event, *, token_ids: Sequence[int] | None = None) -> None:
        await asyncio.sleep(self.delay_s)
        await self._may_go_on.wait()
        await self._broker.publish(lease, [event], token_ids=token_ids)

    def _end(self, job: Job, steps: Sequence[Step]) -> Event:
        if self.ending == "incomplete":
            return Incomplete(response_id=job.response_id, response=_response(job, steps, "incomplete", "length"))
        response = msgspec.structs.replace(_response(job, steps, "completed", "stop"), answer=self.answer)
        return Completed(response_id=job.response_id, response=response)

    @staticmethod
    async def _stop(tasks: "list[asyncio.Task[None]]") -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _events_of(response_id: str, step: Step) -> list[Event]:
    """Two deltas a step, so that joining them is tested."""
    if isinstance(step, TextStep):
        half = len(step.text) // 2
        deltas = [
            StepDelta(response_id=response_id, index=step.index, text=t) for t in (step.text[:half], step.text[half:])
        ]
        kind: Literal["text", "latent"] = "text"
    else:
        deltas = [StepDelta(response_id=response_id, index=step.index, size=n) for n in (step.size // 2, step.size)]
        kind = "latent"
    started = StepStarted(response_id=response_id, index=step.index, step_type=kind)
    return [started, *deltas, completed_event(response_id, step)]


def _response(job: Job, steps: Sequence[Step], status: Status, reason: FinishReason) -> Response:
    return msgspec.structs.replace(
        fold(job, []),
        status=status,
        finish_reason=reason,
        steps=tuple(steps),
        usage=Usage(
            input_tokens=41, image_tokens=16, output_text_tokens=23, latent_steps=8, latent_blocks=1, answer_tokens=6
        ),
        timings=Timings(queue_ms=0.5, time_to_first_step_ms=12.0, total_ms=80.2),
    )


def _cancelled(job: Job, steps: Sequence[Step]) -> Event:
    return Cancelled(response_id=job.response_id, response=_response(job, steps, "cancelled", "cancelled"))


def _failed(job: Job, steps: Sequence[Step], error: IlvrError) -> Event:
    info = error_info(error)
    response = msgspec.structs.replace(_response(job, steps, "failed", "error"), error=info)
    return Failed(response_id=job.response_id, error=info, response=response)
