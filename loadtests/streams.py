"""What the events of a stream say about time. No input or output: fed with lines, and with when each came.

Gaps are between two deltas of text that follow one another in the same step. The server joins what comes within 50 ms,
so a gap may stand for several tokens: it is how smoothly text flows, not the time of a token.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

from contracts.events import (
    Cancelled,
    Completed,
    Created,
    Event,
    Failed,
    Incomplete,
    StepCompleted,
    StepDelta,
    StepStarted,
    decode_event,
)
from loadtests.recorder import LATENT_BLOCK, TEXT_GAP, TIME_TO_FIRST_STEP

DATA = b"data: "
End = Literal["answered", "cancelled", "failed"]
# Told the measure and the seconds; what counts from when the request was due comes as the time of the clock.
Tell = Callable[[str, float], None]


class Stream(ABC):
    """``end`` is set by the last event. ``has_begun`` once a step has."""

    def __init__(self, due_at: float, tell: Tell) -> None:
        self._due_at = due_at
        self._tell = tell
        self._text_at: float | None = None
        self.has_begun = False
        self.end: End | None = None
        self.reason: str | None = None

    def hear(self, line: bytes, now: float) -> None:
        """Raises ``ValueError``: the line is no event."""
        if line.startswith(DATA):
            self._hear(line.removeprefix(DATA).strip(), now)

    @abstractmethod
    def _hear(self, data: bytes, now: float) -> None:
        """What is in one event."""

    def _begin(self, now: float) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._tell(TIME_TO_FIRST_STEP, now - self._due_at)

    def _text(self, now: float) -> None:
        if self._text_at is not None:
            self._tell(TEXT_GAP, now - self._text_at)
        self._text_at = now


class ReasonStream(Stream):
    """``/v1/reason``. ``response_id`` is known from the first event on."""

    response_id: str | None = None

    def _hear(self, data: bytes, now: float) -> None:
        event: Event = decode_event(data)
        match event:
            case Created(response_id=response_id):
                self.response_id = response_id
            case StepStarted():
                self._begin(now)
                self._text_at = None
            case StepDelta(text=str()):
                self._text(now)
            case StepCompleted(step_type="latent", duration_ms=float(ms)):
                self._tell(LATENT_BLOCK, ms / 1000)
            case Completed() | Incomplete():
                self.end = "answered"
            case Cancelled():
                self.end = "cancelled"
            case Failed(error=error):
                self.end, self.reason = "failed", error.code
            case _:
                pass


class ChatStream(Stream):
    """``/v1/chat/completions``: chunks with ``reasoning_content`` or ``content``, then ``[DONE]``."""

    _finish_reason: str | None = None
    _has_reasoned = False

    def _hear(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            if self._finish_reason is None:
                self.end, self.reason = "failed", "ended without a finish_reason"
            else:
                self.end = "answered"
            return
        chunk: dict[str, Any] = json.loads(data)
        if "error" in chunk:
            self.end, self.reason = "failed", str(chunk["error"].get("code"))
            return
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if delta.get("reasoning_content"):
                self._has_reasoned = True
                self._begin(now)
                self._text(now)
            elif delta.get("content"):
                self._begin(now)
                if not self._has_reasoned:  # or it repeats the end of the reasoning, at once
                    self._text(now)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
