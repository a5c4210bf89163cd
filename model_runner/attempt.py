"""One attempt at one job: from the lease to its terminal event, whatever happens on the way."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from msgspec import structs
from structlog.contextvars import bind_contextvars, clear_contextvars

from contracts.broker import Broker, LeaseLost
from contracts.errors import BrokerUnavailable, DeadlineExceeded, EngineDead, GenerationFailed, IlvrError
from contracts.events import Event, Terminal
from contracts.jobs import Lease
from contracts.manifest import LatentSpec
from contracts.responses import FinishReason, Response
from contracts.tracing import Span, span
from model_runner.engine.base import Engine, EngineRequest
from model_runner.generation import GenerationDefaults
from model_runner.image_processor import ImageSizes
from model_runner.images import decode_image
from model_runner.prompt import PromptBuilder
from model_runner.publisher import Publisher
from model_runner.vocabulary import Vocabulary
from model_runner.writer import ResponseWriter

log = logging.getLogger(__name__)

StopCause = Literal["cancelled", "deadline", "shutdown"]
INTERNAL = "an internal error ended this response; see the server's log"


@dataclass(frozen=True)
class Answering:
    """What every attempt needs: the engine, and how prompts and texts are made for its checkpoint."""

    model_name: str
    engine: Engine
    spec: LatentSpec
    defaults: GenerationDefaults
    prompts: PromptBuilder
    image_sizes: ImageSizes
    vocabulary: Vocabulary
    context_tokens: int


class Attempt:
    """Run :meth:`run` as a task and do not cancel that task: :meth:`stop` ends the work and lets it say so."""

    def __init__(
        self,
        lease: Lease,
        broker: Broker,
        tools: Answering,
        on_engine_dead: Callable[[], Awaitable[None]],
        on_text_gap: Callable[[float], None] = lambda gap_s: None,
    ) -> None:
        """``on_engine_dead`` is awaited before the response says so: who reads of it must not be told "ready".

        ``on_text_gap`` is told the seconds from one text token to the next.
        """
        self.lease = lease
        self._on_engine_dead = on_engine_dead
        self._tools = tools
        self._writer = ResponseWriter(lease, tools.spec, tools.vocabulary, time.monotonic, on_text_gap)
        self._publisher = Publisher(broker, lease)
        self._work: asyncio.Task[None] | None = None
        self._stopped_by: StopCause | None = None
        self._is_lost = False
        self._finish: FinishReason | None = None
        self._unsent: list[Event] = []

    def stop(self, cause: StopCause) -> None:
        """End the work, also before it has begun. The first cause counts, but ``shutdown`` always hurries."""
        self._stopped_by = self._stopped_by or cause
        if cause == "shutdown":
            self._publisher.give_up()
        if self._work is not None:
            self._work.cancel()

    async def run(self) -> Response | None:
        """Answer, publish, and return the response; None if the lease was lost or given back."""
        job, waited_s = self.lease.job, self.lease.queue_ms / 1000
        clear_contextvars()
        bind_contextvars(request_id=job.request_id, response_id=job.response_id)
        with span("answer", kind="consumer", parent=job.trace, began_s_ago=waited_s) as answering:
            answering.set(response_id=job.response_id, attempt=self.lease.attempt)
            with span("queue", began_s_ago=waited_s):
                pass
            response = await self._run()
            outcome = "not_ended" if response is None else response.error.code if response.error else response.status
            answering.set(outcome=outcome)
            if response is not None and response.error is not None:
                answering.fail(outcome)
            told = structs.asdict(response.timings) if response is not None else {}
            log.info("answered", extra={"outcome": outcome, "attempt": self.lease.attempt, **told})
            return response

    async def _run(self) -> Response | None:
        deadline = None
        if self.lease.time_left_s is not None:
            deadline = asyncio.get_running_loop().call_later(self.lease.time_left_s, self.stop, "deadline")
        try:
            try:
                return await self._end()
            except (LeaseLost, BrokerUnavailable):
                raise
            except Exception:  # a defect, of which the broker must hear: else the response stays open
                log.exception("response %s could not be ended, and is given back", self.lease.job.response_id)
                await self._publisher.give_back(is_lost=True)
        except LeaseLost:
            pass
        except BrokerUnavailable as error:
            log.warning("response %s is left to another runner: %s", self.lease.job.response_id, error)
        finally:
            if deadline is not None:
                deadline.cancel()
        return None

    async def _end(self) -> Response | None:
        events = await self._outcome()
        if events is None:
            await self._publisher.give_back(is_lost=self._is_lost)
            return None
        await self._publisher.publish([*self._unsent, *events], token_ids=self._writer.token_ids)
        terminal = events[-1]
        assert isinstance(terminal, Terminal)
        return terminal.response

    async def _outcome(self) -> list[Event] | None:
        """The last events, by how the work ended; None if it is for another runner to do.

        Raises ``LeaseLost``, or ``BrokerUnavailable`` after a shutdown.
        """
        if self._stopped_by is None:
            self._work = asyncio.create_task(self._generate())
            await asyncio.wait([self._work])
            if not self._work.cancelled() and (error := self._work.exception()) is not None:
                return await self._failure(error)
        if self._finish is not None:  # a stop that comes after the last token changes nothing
            return self._writer.end(self._finish)
        if self._stopped_by == "cancelled":
            return self._writer.end("cancelled")
        if self._stopped_by == "deadline":
            limit_s = self.lease.job.timeout_s
            return self._writer.fail(DeadlineExceeded(f"This response was not finished within {limit_s:g} s."))
        return None

    async def _failure(self, error: BaseException) -> list[Event] | None:
        if isinstance(error, LeaseLost | BrokerUnavailable):
            raise error
        if isinstance(error, EngineDead):
            self._is_lost = True
            await self._on_engine_dead()
            return None
        if isinstance(error, IlvrError):
            return self._writer.fail(error)
        # A defect of ours: the response must end all the same, and the trace belongs in the log.
        log.error("response %s failed", self.lease.job.response_id, exc_info=error)
        return self._writer.fail(GenerationFailed(INTERNAL))

    async def _generate(self) -> None:
        """Publish all but the last events."""
        with span("prepare"):  # pictures and question into a prompt
            request = await self._request()
        with span("generate") as generating:
            try:
                await self._generate_from(request, generating)
            finally:
                usage = structs.asdict(self._writer.usage)
                del usage["answer_tokens"]  # known when the last step has ended, which is later
                generating.set(num_images=len(request.images), **usage)

    async def _generate_from(self, request: EngineRequest, generating: Span) -> None:
        async with aclosing(self._tools.engine.generate(request)) as deltas:
            async for delta in deltas:
                if delta.prompt is not None:  # the encoder and the prefill are behind it
                    generating.event("first_token", engine_queue_ms=delta.prompt.queue_ms)
                has_begun = self._writer.has_begun
                events = self._writer.write(delta)
                if self._writer.has_begun and not has_begun:
                    generating.event("first_step")
                if delta.stop_reason is not None or self._writer.is_stopped:
                    self._unsent = events
                    self._finish = "stop" if self._writer.is_stopped else delta.stop_reason
                    return
                await self._publisher.publish(events)
        raise GenerationFailed("the engine ended the stream of tokens without a reason")

    async def _request(self) -> EngineRequest:
        """Raises ``ImageLost``, ``GenerationFailed`` for a job of another model, and ``RequestError``.

        The last is for what only shows here: a broken picture, a prompt too long.
        """
        job, tools = self.lease.job, self._tools
        if job.model != tools.model_name:  # jobs do not choose their runner
            raise GenerationFailed(
                f"A runner of {tools.model_name} took this job for {job.model}. All runners of a broker must serve one "
                "model; once they do, send the request again."
            )
        stored = [await self._publisher.get_image(image.id) for image in job.images]
        images = tuple(await asyncio.gather(*(asyncio.to_thread(decode_image, image) for image in stored)))
        num_former = sum(turn.num_images for turn in job.history)
        prompt_ids = tools.prompts.build(job.question, num_images=len(images) - num_former, history=job.history)
        num_image_tokens = sum(tools.image_sizes.num_tokens(image.rgb.size) for image in images)
        return EngineRequest(
            request_id=f"{job.response_id}-{self.lease.attempt}",
            prompt_ids=prompt_ids,
            images=images,
            sampling=tools.defaults.resolve(
                job.sampling,
                num_prompt_tokens=len(prompt_ids) - len(images) + num_image_tokens,
                context_tokens=tools.context_tokens,
            ),
            latent_mode=job.latent_mode,
        )
