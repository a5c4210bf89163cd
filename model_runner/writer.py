"""Token deltas of one response into its events and, at the end, its response object."""

from collections.abc import Callable, Iterable

from contracts.errors import IlvrError
from contracts.events import (
    Cancelled,
    Completed,
    Event,
    Failed,
    Incomplete,
    InProgress,
    StepDelta,
    StepStarted,
    Terminal,
    completed_event,
)
from contracts.jobs import Lease
from contracts.manifest import LatentSpec
from contracts.responses import (
    ErrorInfo,
    FinishReason,
    LatentStep,
    Response,
    Status,
    Step,
    TextStep,
    Timings,
    Usage,
    error_info,
)
from model_runner.answer import extract_answer
from model_runner.answer_tokens import count_answer_tokens
from model_runner.engine.base import PromptInfo, TokenDelta
from model_runner.steps import BlockEnded, PadsAdded, Started, StepMachine, TextAdded, Update
from model_runner.vocabulary import Vocabulary


class ResponseWriter:
    """One per attempt at a job. ``clock`` counts seconds; the first reading is when the runner took the job."""

    def __init__(
        self,
        lease: Lease,
        spec: LatentSpec,
        vocabulary: Vocabulary,
        clock: Callable[[], float],
        on_text_gap: Callable[[float], None] = lambda gap_s: None,
    ) -> None:
        self._lease = lease
        self._job = lease.job
        self._clock = clock
        self._taken_at = clock()
        self._vocabulary = vocabulary
        self._machine = StepMachine(spec, vocabulary, self._job.sampling.stop)
        self._prompt: PromptInfo | None = None
        self._queue_ms: float | None = None
        self._first_step_ms: float | None = None
        self._step_started_at = self._taken_at
        self._on_text_gap = on_text_gap
        self._text_at: float | None = None  # of the last delta, if it ended in text
        self._ids: list[int] = []
        self._steps: list[Step] = []

    @property
    def is_stopped(self) -> bool:
        """A stop string has appeared: the engine may be told to end."""
        return self._machine.is_stopped

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All that was generated so far."""
        return tuple(self._ids)

    @property
    def has_begun(self) -> bool:
        """A step has begun."""
        return self._first_step_ms is not None

    @property
    def usage(self) -> Usage:
        """So far."""
        prompt = self._prompt or PromptInfo(num_tokens=0, num_image_tokens=0, num_cached_tokens=0, queue_ms=0.0)
        num_latent_steps = self._machine.num_latent_steps
        return Usage(
            input_tokens=prompt.num_tokens,
            image_tokens=prompt.num_image_tokens,
            cached_tokens=prompt.num_cached_tokens,
            output_text_tokens=len(self._ids) - num_latent_steps,
            latent_steps=num_latent_steps,
            latent_blocks=self._machine.num_latent_blocks,
            answer_tokens=count_answer_tokens(self._ids, self._vocabulary, self._texts),
        )

    @property
    def _texts(self) -> list[str]:
        """Of each completed step; of a latent one, none."""
        return [step.text if isinstance(step, TextStep) else "" for step in self._steps]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)

    def write(self, delta: TokenDelta) -> list[Event]:
        """The events that a delta brings."""
        events: list[Event] = []
        if delta.prompt is not None:
            self._prompt = delta.prompt
            self._queue_ms = round(self._lease.queue_ms + delta.prompt.queue_ms, 3)
            events.append(
                InProgress(
                    response_id=self._job.response_id,
                    queue_ms=self._queue_ms,
                    cached_tokens=delta.prompt.num_cached_tokens,
                )
            )
        self._ids += delta.ids
        was_in_block = self._machine.is_in_block
        events += self._events(self._machine.feed(delta.ids))
        self._tell_text_gap(len(delta.ids), was_in_block)
        return events

    def end(self, reason: FinishReason) -> list[Event]:
        """The last events of a response that was not failed: its open step, and the terminal one."""
        events = self._events(self._machine.finish())
        response_id = self._job.response_id
        terminal: Terminal
        if reason == "cancelled":
            terminal = Cancelled(response_id=response_id, response=self._response("cancelled", reason))
        elif reason == "length":
            terminal = Incomplete(response_id=response_id, response=self._response("incomplete", reason))
        else:
            terminal = Completed(response_id=response_id, response=self._response("completed", reason))
        return [*events, terminal]

    def fail(self, error: IlvrError) -> list[Event]:
        """The last events of a response that an error ended; what it had reached is kept."""
        events = self._events(self._machine.finish())
        info = error_info(error)
        response = self._response("failed", "error", info)
        return [*events, Failed(response_id=self._job.response_id, error=info, response=response)]

    def _events(self, updates: Iterable[Update]) -> list[Event]:
        events: list[Event] = []
        response_id = self._job.response_id
        for update in updates:
            if isinstance(update, Started):
                self._step_started_at = self._clock()
                if self._first_step_ms is None:
                    self._first_step_ms = self._since_submission_ms()
                events.append(StepStarted(response_id=response_id, index=update.index, step_type=update.step_type))
            elif isinstance(update, TextAdded):
                events.append(StepDelta(response_id=response_id, index=update.index, text=update.text))
            elif isinstance(update, PadsAdded):
                events.append(StepDelta(response_id=response_id, index=update.index, size=update.size))
            else:
                step: Step
                if isinstance(update, BlockEnded):
                    duration_ms = round((self._clock() - self._step_started_at) * 1000, 3)
                    step = LatentStep(index=update.index, size=update.size, exit=update.exit, duration_ms=duration_ms)
                else:
                    step = TextStep(index=update.index, text=update.text)
                self._steps.append(step)
                events.append(completed_event(response_id, step))
        return events

    def _tell_text_gap(self, num_tokens: int, was_in_block: bool) -> None:
        """Between two deltas that are all text; the first token of a text has nothing before it."""
        if self._machine.is_in_block:
            self._text_at = None
            return
        now = self._clock()
        if self._text_at is not None and not was_in_block and num_tokens:
            gap_s = (now - self._text_at) / num_tokens
            for _ in range(num_tokens):
                self._on_text_gap(gap_s)
        self._text_at = now

    def _since_submission_ms(self) -> float:
        return round(self._lease.queue_ms + (self._clock() - self._taken_at) * 1000, 3)

    def _response(self, status: Status, reason: FinishReason, error: ErrorInfo | None = None) -> Response:
        return Response(
            id=self._job.response_id,
            created_at=self._job.created_at,
            model=self._job.model,
            status=status,
            finish_reason=reason,
            steps=self.steps,
            answer=extract_answer("".join(self._texts)),
            usage=self.usage,
            timings=Timings(
                queue_ms=self._queue_ms,
                time_to_first_step_ms=self._first_step_ms,
                total_ms=self._since_submission_ms(),
            ),
            error=error,
            metadata=self._job.metadata,
        )
