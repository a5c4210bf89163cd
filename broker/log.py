"""The log of one response: its events, numbered, who works on it and who reads it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import get_args

import msgspec

from broker.signal import Signal
from broker.text_bytes import TOKEN_BYTES, text_bytes
from contracts.events import Event, StepDelta, Terminal, encode_event
from contracts.jobs import Job

TERMINAL_TYPES = get_args(Terminal)
DELTA_BYTES = 256  # of one in memory, beside its text


def check_events(response_id: str, events: Sequence[Event]) -> None:
    """Raises ``ValueError``: something follows a terminal event, or belongs to another response."""
    last = len(events) - 1
    for index, event in enumerate(events):
        if index != last and isinstance(event, TERMINAL_TYPES):
            raise ValueError(f"{response_id}: nothing can follow a terminal event")
        if event.response_id != response_id:
            raise ValueError(f"{response_id}: an event of another response")


class ResponseLog:
    """Append-only. Open until its last event is terminal.

    runner_id: set while a runner works on it.
    num_of_lease: events published under the lease that is out.
    num_given_back: attempts that ended because their runner was about to stop.
    read_until: by reader, the time until which somebody reads this by its word.
    timer: wakes the broker at the deadline.
    job_bytes: what waits in memory with it; the texts and the images.
    token_ids: what was generated, once it has ended.
    """

    __slots__ = (
        "_advanced",
        "_grown",
        "attempt",
        "deadline",
        "events",
        "is_cancel_asked",
        "job",
        "job_bytes",
        "num_bytes",
        "num_given_back",
        "num_of_lease",
        "read_until",
        "runner_id",
        "submitted_at",
        "timer",
        "token_ids",
    )

    def __init__(self, job: Job, submitted_at: float, job_bytes: int = 0) -> None:
        self.job = job
        self.submitted_at = submitted_at
        self.deadline = submitted_at + job.timeout_s if job.timeout_s is not None else float("inf")
        self.timer: asyncio.TimerHandle | None = None
        self.events: list[Event] = []
        self.num_bytes = text_bytes(job)
        self.job_bytes = job_bytes
        self.runner_id: str | None = None
        self.attempt = 0
        self.num_of_lease = 0
        self.num_given_back = 0
        self.is_cancel_asked = False
        self.read_until: dict[str, float] = {}
        self.token_ids: tuple[int, ...] | None = None
        self._grown = Signal()
        self._advanced = Signal()  # by more than deltas

    @property
    def is_closed(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], TERMINAL_TYPES)

    def append(self, events: Sequence[Event]) -> None:
        """Number the events and add them, all or none. The log must be open.

        Raises ``ValueError``: something follows a terminal event, or belongs to another response.
        """
        check_events(self.job.response_id, events)
        first = len(self.events)
        numbered = [msgspec.structs.replace(event, sequence_number=first + i) for i, event in enumerate(events)]
        self.events.extend(numbered)
        self.num_bytes += sum(_num_bytes(event) for event in numbered)
        self._grown.notify()
        if not all(isinstance(event, StepDelta) for event in events):
            self._advanced.notify()

    def keep_tokens(self, token_ids: Sequence[int]) -> None:
        self.token_ids = tuple(token_ids)
        self.num_bytes += TOKEN_BYTES * len(token_ids)

    async def follow(self, starting_after: int, *, deltas: bool) -> AsyncIterator[Event]:
        """Events with a greater number, until the log is closed; with the deltas among them or without."""
        position = max(starting_after + 1, 0)
        while True:
            while position < len(self.events):
                event = self.events[position]
                position += 1
                if deltas or not isinstance(event, StepDelta):
                    yield event
            if self.is_closed:
                return
            await (self._grown if deltas else self._advanced).wait()


def _num_bytes(event: Event) -> int:
    """About what it takes in memory. Deltas are most of all events, and are encoded for their readers only."""
    if isinstance(event, StepDelta):
        return DELTA_BYTES + (len(event.text) if isinstance(event.text, str) else 0)
    return len(encode_event(event))
