"""Stop strings in a text that comes in pieces."""

from collections.abc import Sequence


class StopScanner:
    """Holds back as much of the end of the text as could still become a stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.is_stopped = False

    def feed(self, text: str) -> str:
        """What may be shown now. The first stop string to be complete ends the text before it, however it was cut."""
        if not self._stop:
            return text
        self._held += text
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            _, begin = min(found)
            shown, self._held = self._held[:begin], ""
            return shown
        keep = max(_overlap(self._held, stop) for stop in self._stop)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """What was held back: the text is over, and it was no stop string after all."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``, short of all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
