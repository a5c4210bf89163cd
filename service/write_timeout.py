"""Clients that stop reading: what waits for them in this process is bounded, and after a while they are dropped."""

import asyncio
import fcntl
import logging
import struct
import termios

from service.bounded_head import BoundedHeadProtocol

log = logging.getLogger(__name__)

# Where the app says it: what its lifespan yields is the state of every connection.
STATE = "write_timeout_s"
DEFAULT_S = 60.0


class DroppableProtocol(BoundedHeadProtocol):
    """Uvicorn's, but a connection whose client takes nothing of what was written for too long is aborted.

    Uvicorn holds a stream back while more than some 64 KiB wait in its buffer, but it does so for ever; and to close
    a connection does not end it, however little waits, for a socket is closed when all that was written has been taken.
    """

    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look()  # the time is counted from now

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._watch is not None:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        super().connection_lost(exc)

    def _look(self, num_waiting_before: int | None = None) -> None:
        """Once in a timeout for as long as the connection is there: it may be closed in many places.

        While writing is paused, or the connection is closing, nothing is added: as many bytes as before means that the
        client took none. ``num_waiting_before`` is None if that cannot be said of the time since the last look.
        """
        self._stop_looking()
        timeout_s = self.app_state.get(STATE, DEFAULT_S)
        num_waiting = None
        if self.flow.write_paused or self.transport.is_closing():
            num_waiting = self.transport.get_write_buffer_size() + _num_unacknowledged(self.transport)
        if num_waiting and num_waiting == num_waiting_before:
            log.info("a client took nothing of its answer for %g s and is dropped", timeout_s)
            self.transport.abort()  # what is sent to it returns, and whoever waits for it to be gone hears of it
        else:
            self._watch = asyncio.get_running_loop().call_later(timeout_s, self._look, num_waiting)

    def _stop_looking(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


def _num_unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes in the kernel's send queue, which holds megabytes and asks for more when a third of them is gone."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return 0
    return int(struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
