"""Lines to a file descriptor from a thread of its own: a full disk, a closed pipe or a reader that stopped cost lines,
never an answer."""

import atexit
import os
import queue
import threading

MAX_WAITING_LINES = 10_000
EXIT_WAIT_S = 2.0


class LineWriter:
    """``num_dropped``: lines that could not be written, or for which there was no room while others waited."""

    def __init__(self, descriptor: int, max_waiting: int = MAX_WAITING_LINES) -> None:
        self._descriptor = descriptor
        self._waiting: queue.Queue[str | None] = queue.Queue(max_waiting)
        self.num_dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, line: str) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self.drop()

    def drop(self) -> None:
        self.num_dropped += 1

    def close(self, wait_s: float = EXIT_WAIT_S) -> None:
        """Write what waits, if that is possible in so many seconds."""
        atexit.unregister(self.close)
        try:
            self._waiting.put(None, timeout=wait_s)
        except queue.Full:
            return
        self._thread.join(wait_s)

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            data = line.encode(errors="backslashreplace") + b"\n"
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:  # the next line may fit again
                self.drop()
