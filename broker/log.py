"""The log of one response: its events, numbered, and who works on it."""

from collections.abc import AsyncIterator, Sequence
from typing import get_args

import msgspec

from broker.signal import Signal
from contracts.events import Event, Terminal, encode_event
from contracts.jobs import Job

TERMINAL_TYPES = get_args(Terminal)


class ResponseLog:
    """Append-only. Open until its last event is terminal; ``runner_id`` is set while a runner works on it."""

    __slots__ = (
        "_grown",
        "attempt",
        "events",
        "is_cancel_asked",
        "job",
        "num_bytes",
        "runner_id",
        "submitted_at",
    )

    def __init__(self, job: Job, submitted_at: float) -> None:
        self.job = job
        self.submitted_at = submitted_at
        self.events: list[Event] = []
        self.num_bytes = len(job.question.encode())
        self.runner_id: str | None = None
        self.attempt = 0
        self.is_cancel_asked = False
        self._grown = Signal()

    @property
    def is_closed(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], TERMINAL_TYPES)

    def append(self, events: Sequence[Event]) -> None:
        """Number the events and add them, all or none. The log must be open.

        Raises ``ValueError``: something follows a terminal event, or belongs to another response.
        """
        if any(isinstance(event, TERMINAL_TYPES) for event in events[:-1]):
            raise ValueError(f"{self.job.response_id}: nothing can follow a terminal event")
        if any(event.response_id != self.job.response_id for event in events):
            raise ValueError(f"{self.job.response_id}: an event of another response")
        first = len(self.events)
        numbered = [msgspec.structs.replace(event, sequence_number=first + i) for i, event in enumerate(events)]
        self.events.extend(numbered)
        self.num_bytes += sum(len(encode_event(event)) for event in numbered)
        self._grown.notify()

    async def follow(self, starting_after: int) -> AsyncIterator[Event]:
        """Events with a greater number, until the log is closed."""
        position = max(starting_after + 1, 0)
        while True:
            while position < len(self.events):
                yield self.events[position]
                position += 1
            if self.is_closed:
                return
            await self._grown.wait()
