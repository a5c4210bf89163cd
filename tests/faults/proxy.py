"""A network that is slow or breaks: a TCP proxy on loopback, between a process and Redis."""

import asyncio
import socket
import struct
from collections import deque
from typing import Self

ACCEPTING_ROUNDS = 5  # of the event loop, from a connection in the kernel to one that has been cut
NO_GOODBYE = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: the connection ends with RST


class Proxy:
    """Forwards every connection to ``port``; ``delay_s`` passes before each piece goes on, in both directions.

    ``freeze``: connections stay open and nothing passes, as when a firewall forgets them. ``reset``: they end at once,
    with RST. ``refuse``: so do new ones, until ``restore``.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.ends: set[_End] = set()
        self.connecting: set[asyncio.Task[None]] = set()
        self.is_refusing = False
        self.delay_s = 0.0
        self.num_connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Near(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in self.connecting:
            task.cancel()
        # A connection that Python 3.11 is about to accept as its server is closed would stay open for ever.
        for _ in range(ACCEPTING_ROUNDS):
            await asyncio.sleep(0)
        self._server.close()
        await self._server.wait_closed()

    def freeze(self) -> None:
        """The connections that are open now carry nothing any more, and never will; new ones work."""
        for end in self.ends:
            end.is_frozen = True

    @property
    def num_working(self) -> int:
        """Ends of connections that carry something."""
        return sum(not end.is_frozen for end in self.ends)

    def reset(self) -> None:
        """Cut the connections that are open now; new ones work."""
        for end in tuple(self.ends):
            end.cut(with_reset=True)

    def refuse(self) -> None:
        self.is_refusing = True
        self.reset()

    def restore(self) -> None:
        self.is_refusing = False
        self.delay_s = 0.0


class _End(asyncio.Protocol):
    """One of the two sides of a connection; what it hears goes to the other."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self.is_frozen = False
        self._due_at = 0.0
        self._pieces: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.proxy.ends.add(self)

    def data_received(self, data: bytes) -> None:
        """Pieces keep their order, whatever becomes of the delay."""
        loop = asyncio.get_running_loop()
        self._pieces.append(data)
        self._due_at = max(self._due_at, loop.time() + self.proxy.delay_s)
        if self.proxy.delay_s or len(self._pieces) > 1:
            loop.call_at(self._due_at, self._pass_on)
        else:
            self._pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.proxy.ends.discard(self)
        if self.other is not None and not self.is_frozen:
            self.other.cut()

    def cut(self, *, with_reset: bool = False) -> None:
        if self.transport is None:
            return
        if with_reset:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_GOODBYE)
        self.transport.abort()

    def _pass_on(self) -> None:
        data = self._pieces.popleft()
        if self.other is not None and self.other.transport is not None and not self.is_frozen:
            self.other.transport.write(data)


class _Near(_End):
    """The side that connected to the proxy."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.proxy.is_refusing:
            self.cut(with_reset=True)
            return
        assert self.transport is not None
        self.transport.pause_reading()
        task = asyncio.create_task(self._connect())
        self.proxy.connecting.add(task)
        task.add_done_callback(self.proxy.connecting.discard)

    async def _connect(self) -> None:
        assert self.transport is not None
        try:
            _, far = await asyncio.get_running_loop().create_connection(
                lambda: _End(self.proxy), "127.0.0.1", self.proxy.target
            )
        except OSError:
            self.cut()
            return
        far.other, self.other = self, far
        self.proxy.num_connections += 1
        if self.transport.is_closing():
            far.cut()
        else:
            self.transport.resume_reading()
