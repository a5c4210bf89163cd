"""The runner: takes jobs when it has room, answers them on the engine, publishes what happens."""

import asyncio
import logging
import time
from contextlib import aclosing, suppress
from functools import partial
from typing import NoReturn

from contracts.broker import Broker, LeaseLost, RunnerStatus
from contracts.errors import EngineDead, GenerationFailed, IlvrError
from contracts.events import Event, Terminal
from contracts.jobs import Lease
from contracts.responses import FinishReason
from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import Engine, EngineRequest
from model_runner.generation import GenerationDefaults
from model_runner.image_processor import ImageSizes
from model_runner.images import decode_image
from model_runner.metrics import RunnerMetrics
from model_runner.prompt import PromptBuilder
from model_runner.publisher import Publisher
from model_runner.vocabulary import Vocabulary
from model_runner.writer import ResponseWriter

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
READ_COUNTS_S = 5.0
SHUTDOWN = "the server is shutting down; send the request again"


class Runner:
    """One engine's worth of work. :meth:`run` ends only when it is cancelled."""

    def __init__(
        self,
        *,
        runner_id: str,
        model_name: str,
        broker: Broker,
        engine: Engine,
        checkpoint: Checkpoint,
        defaults: GenerationDefaults,
        prompts: PromptBuilder,
        image_sizes: ImageSizes,
        vocabulary: Vocabulary,
        context_tokens: int,
        max_num_seqs: int,
        metrics: RunnerMetrics,
    ) -> None:
        self._id = runner_id
        self._model_name = model_name
        self._broker = broker
        self._engine = engine
        self._checkpoint = checkpoint
        self._defaults = defaults
        self._prompts = prompts
        self._image_sizes = image_sizes
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._max_num_seqs = max_num_seqs
        self._metrics = metrics
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._has_room = asyncio.Event()
        self._is_ready = True

    async def run(self) -> NoReturn:
        """Work until cancelled; what is unfinished then ends with ``response.failed``."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_jobs())
                group.create_task(self._hear_cancellations())
                group.create_task(self._beat())
                group.create_task(self._read_counts())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        raise AssertionError("the loops of a runner do not end by themselves")

    async def _take_jobs(self) -> None:
        while True:
            room = self._max_num_seqs - len(self._tasks)
            if room < 1:
                self._has_room.clear()
                await self._has_room.wait()
                continue
            for lease in await self._broker.take(self._id, room=room):
                response_id = lease.job.response_id
                task = asyncio.create_task(self._answer(lease), name=f"answer {response_id}")
                self._tasks[response_id] = task
                task.add_done_callback(partial(self._forget, response_id))

    def _forget(self, response_id: str, task: asyncio.Task[None]) -> None:
        del self._tasks[response_id]
        self._cancelled.discard(response_id)
        self._has_room.set()

    async def _hear_cancellations(self) -> None:
        async for response_id in self._broker.cancellations(self._id):
            if response_id in self._tasks and response_id not in self._cancelled:
                self._cancelled.add(response_id)
                self._tasks[response_id].cancel()

    async def announce(self) -> None:
        """Say once how the engine is. :meth:`run` does it all the time."""
        await self._report(is_ready=await self._engine.is_ready())

    async def _beat(self) -> None:
        while True:
            await self.announce()
            await asyncio.sleep(HEARTBEAT_S)

    async def _report(self, *, is_ready: bool) -> None:
        self._is_ready = is_ready
        self._metrics.is_ready.set(is_ready)
        self._metrics.in_flight.set(len(self._tasks))
        await self._broker.heartbeat(
            RunnerStatus(
                runner_id=self._id,
                model=self._model_name,
                is_ready=is_ready,
                num_running=len(self._tasks),
                max_num_seqs=self._max_num_seqs,
                latent_size=self._checkpoint.spec.size,
                latent_exit=self._checkpoint.spec.rule,
                engine=self._engine.name,
                detail="" if is_ready else "the engine process is gone; restart the server",
            )
        )

    async def _read_counts(self) -> None:
        """Apart from the heartbeat: the engine answers between two steps, and a step may take long."""
        while True:
            if self._is_ready:
                with suppress(EngineDead):  # the next beat says so
                    stats = await self._engine.stats()
                    for name, count in {**stats.model, "preemptions": stats.num_preemptions}.items():
                        self._metrics.engine.labels(name).set(count)
            await asyncio.sleep(READ_COUNTS_S)

    async def _answer(self, lease: Lease) -> None:
        """Work on one job until its terminal event is published, whatever happens on the way."""
        writer = ResponseWriter(lease, self._checkpoint.spec, self._vocabulary, time.monotonic)
        publisher = Publisher(self._broker, lease)
        try:
            events = await self._generate(lease, writer, publisher)
        except LeaseLost:
            return
        except asyncio.CancelledError:
            asked = lease.job.response_id in self._cancelled
            events = writer.end("cancelled") if asked else writer.fail(GenerationFailed(SHUTDOWN))
        except EngineDead as error:
            events = writer.fail(error)
            await self._report(is_ready=False)
        except IlvrError as error:
            events = writer.fail(error)
        except Exception:  # a defect of ours: the response must end, and the trace belongs in the log
            log.exception("response %s failed", lease.job.response_id)
            events = writer.fail(GenerationFailed("an internal error ended this response; see the server's log"))
        with suppress(LeaseLost):
            await publisher.publish(events)
            terminal = events[-1]
            assert isinstance(terminal, Terminal)
            self._metrics.count(terminal.response)

    async def _generate(self, lease: Lease, writer: ResponseWriter, publisher: Publisher) -> list[Event]:
        """Publish all but the last events, and return those."""
        job = lease.job
        stored = [await self._broker.get_image(image.id) for image in job.images]
        images = tuple(await asyncio.gather(*(asyncio.to_thread(decode_image, image) for image in stored)))
        prompt_ids = self._prompts.build(job.question, num_images=len(images))
        num_image_tokens = sum(self._image_sizes.num_tokens(image.rgb.size) for image in images)
        request = EngineRequest(
            request_id=f"{job.response_id}-{lease.attempt}",
            prompt_ids=prompt_ids,
            images=images,
            sampling=self._defaults.resolve(
                job.sampling,
                num_prompt_tokens=len(prompt_ids) - len(images) + num_image_tokens,
                context_tokens=self._context_tokens,
            ),
            latent_mode=job.latent_mode,
        )
        async with aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                events = writer.write(delta)
                if delta.stop_reason is not None or writer.is_stopped:
                    reason: FinishReason = "stop" if writer.is_stopped or delta.stop_reason == "stop" else "length"
                    return [*events, *writer.end(reason)]
                await publisher.publish(events)
        raise GenerationFailed("the engine ended the stream of tokens without a reason")
