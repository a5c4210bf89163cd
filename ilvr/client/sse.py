"""Server-sent events from bytes, as they come."""

from collections.abc import Iterator

from contracts.events import Event, decode_event

DATA = b"data: "


class EventParser:
    """Feed it what arrives; half a line waits for its other half.

    Lines are split by hand: ``iter_lines`` of httpx also breaks at U+2028 and the like, which a text may hold.
    """

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are complete now. Comments (pings) are none. Raises ``msgspec.ValidationError``."""
        *lines, self._waiting = (self._waiting + chunk).split(b"\n")
        for line in lines:
            if line.startswith(DATA):
                yield decode_event(line.removeprefix(DATA))
