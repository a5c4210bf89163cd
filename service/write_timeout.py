"""Clients that stop reading: what waits for them in this process is bounded, and after a while they are dropped."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

log = logging.getLogger(__name__)

DROP = "drop_connection"


class DroppableProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """Uvicorn's, but a request may end its connection at once, which ASGI has no word for.

    To close it would not do: a socket closes when all that was written is read, which is never.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, DROP: transport.abort}  # of each request's scope["state"]


class WriteTimeoutMiddleware:
    """Plain ASGI. ``send`` returns when the server has room for more, which is the client's to give; here in time.

    What waits in the server is its write buffer of some 64 KiB and one message. Needs ``DroppableProtocol``; under
    another server nobody is dropped.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s
        # Sends that have not returned, by a number of theirs: since when, and what drops the client. One timer looks
        # at all of them; a timer for each would cost more than most sends do.
        self._sending: dict[int, tuple[float, Callable[[], None]]] = {}
        self._num_sent = 0
        self._is_watching = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        drop = scope.get("state", {}).get(DROP)
        if scope["type"] != "http" or drop is None:
            await self._app(scope, receive, send)
            return

        async def watched_send(message: Message) -> None:
            number = self._num_sent = self._num_sent + 1
            self._sending[number] = (asyncio.get_running_loop().time(), drop)
            if not self._is_watching:
                self._watch()
            try:
                await send(message)
            finally:
                self._sending.pop(number, None)

        await self._app(scope, receive, watched_send)

    def _watch(self) -> None:
        """Again in a quarter of the time, for as long as anything is being sent."""
        loop = asyncio.get_running_loop()
        oldest_allowed = loop.time() - self._timeout_s
        for number, (since, drop) in list(self._sending.items()):
            if since > oldest_allowed:
                break  # the rest began later
            log.info("a client took nothing of its answer for %g s and is dropped", self._timeout_s)
            del self._sending[number]
            drop()  # its sends return, and whoever waits for it to be gone hears of it
        self._is_watching = bool(self._sending)
        if self._is_watching:
            loop.call_later(self._timeout_s / 4, self._watch)
