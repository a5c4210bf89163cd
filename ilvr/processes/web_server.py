"""An ASGI app on a socket, from its start to an orderly end."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from ilvr.processes.signals import StopSignals
from service.write_timeout import DroppableProtocol

BACKLOG = 2048
CLOSING_S = 5.0  # for what ends once it is told to; then its connection is cut


class WebServer(uvicorn.Server):
    """Uvicorn that leaves signals to us: its own handling ends the process before the engine is told."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, *, grace_s: float, on_started: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,  # its lines go where all others go
                http=DroppableProtocol,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=round(grace_s + CLOSING_S),
                backlog=BACKLOG,
            )
        )
        self._listener = listener
        self._grace_s = grace_s
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until(
        self,
        stop: Awaitable[object],
        signals: StopSignals,
        *,
        begin_stop: Callable[[], None] = lambda: None,
        delay_s: float = 0.0,
        end_open: Callable[[], Awaitable[None]],
    ) -> None:
        """Serve until ``stop`` is done; then no connection is accepted, and what is open has the grace to finish.

        begin_stop: called first, ``delay_s`` before the socket is closed, so that a load balancer can see it.
        end_open: awaited when the grace is over; it ends every open request.

        A second signal skips both waits.
        """
        serving = asyncio.create_task(self.serve(sockets=[self._listener]), name="web server")
        stopped = asyncio.ensure_future(stop)
        try:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            begin_stop()
            await signals.pause(delay_s)
            self.should_exit = True
            await _wait_for_either(serving, signals.insisted, self._grace_s)
            self.force_exit = signals.insisted.is_set()
            await end_open()
            await serving
            if self.force_exit:  # then uvicorn leaves out what ends the app, too
                await self.lifespan.shutdown()
        finally:
            for task in (stopped, serving):
                task.cancel()
            await asyncio.wait({stopped, serving})


async def _wait_for_either(task: "asyncio.Task[None]", event: asyncio.Event, timeout_s: float) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
