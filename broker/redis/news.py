"""Events that came with messages, so that those who follow a response need not read them again.

A message may be lost, and a follower may be slow: what is not here without a gap is read from the log.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from contracts.events import Event, decode_event

ONLY_DELTAS = b"deltas"
KEPT = 32  # messages; of the deltas of one response, more than a second


@dataclass(frozen=True, slots=True)
class Part:
    """``first``: sequence number of the first event. ``has_more``: than deltas."""

    first: int
    encoded: Sequence[bytes]
    has_more: bool

    @property
    def end(self) -> int:
        return self.first + len(self.encoded)


class News:
    """Of one response, the latest in order."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: deque[Part] = deque(maxlen=KEPT)

    def hear(self, message: bytes) -> Part | None:
        """What a message says: its kind, the number of its first event, and the events, a line each. None: nothing, or
        it is of another version, in a form that is not known here."""
        kind, _, rest = message.partition(b"\n")
        first, *encoded = rest.split(b"\n")
        if not (first.isdigit() and encoded and all(encoded)):
            return None
        part = Part(int(first), encoded, has_more=kind != ONLY_DELTAS)
        if self._parts and self._parts[-1].end != part.first:
            self._parts.clear()
        self._parts.append(part)
        return part

    def is_behind(self, position: int) -> bool:
        """Whether what is known ends before a place: its messages are late, or the log is not what it was."""
        return bool(self._parts) and self._parts[-1].end < position

    def since(self, position: int, *, deltas: bool) -> tuple[list[Event], int] | None:
        """Events from a number on and the number of the next; None: it takes the log to say."""
        if not self._parts or self._parts[-1].end == position:
            return [], position
        if not self._parts[0].first <= position < self._parts[-1].end:
            return None
        events = []
        for part in self._parts:
            if part.end > position and (deltas or part.has_more):
                events += [
                    msgspec.structs.replace(decode_event(one), sequence_number=number)
                    for number, one in enumerate(part.encoded, part.first)
                    if number >= position
                ]
        return events, self._parts[-1].end
