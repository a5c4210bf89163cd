"""The bad network is as bad as it says."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest

from tests.faults.proxy import Proxy

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """In front of a server that says everything back."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()
    await server.wait_closed()


async def connected(proxy: Proxy) -> Connection:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(connection: Connection, data: bytes, timeout_s: float = 5.0) -> bytes:
    reader, writer = connection
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), timeout_s)


async def test_it_forwards_and_delays(proxy: Proxy) -> None:
    connection = await connected(proxy)
    assert await echoed(connection, b"x" * 300_000) == b"x" * 300_000
    proxy.delay_s = 0.1
    began = time.monotonic()
    assert await echoed(connection, b"there and back") == b"there and back"
    assert 0.2 <= time.monotonic() - began < 1.0
    connection[1].close()


async def test_half_open_connections_are_silent_and_new_ones_work(proxy: Proxy) -> None:
    old = await connected(proxy)
    await echoed(old, b"1")
    proxy.freeze()
    new = await connected(proxy)
    assert await echoed(new, b"2") == b"2"
    with pytest.raises(TimeoutError):
        await echoed(old, b"3", timeout_s=0.3)
    assert not old[0].at_eof()
    for connection in (old, new):
        connection[1].close()


async def test_connections_are_reset_and_refused(proxy: Proxy) -> None:
    old = await connected(proxy)
    await echoed(old, b"1")
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await old[0].read(1)
    proxy.refuse()
    refused = await connected(proxy)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await echoed(refused, b"2")
    proxy.restore()
    new = await connected(proxy)
    assert await echoed(new, b"3") == b"3"
    for connection in (old, refused, new):
        connection[1].close()


@pytest.mark.parametrize("num_rounds", range(6))
async def test_what_connects_as_it_ends_is_cut_too(num_rounds: int) -> None:
    """However far the event loop is in accepting it."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        late = socket.create_connection(("127.0.0.1", proxy.port))
        for _ in range(num_rounds):
            await asyncio.sleep(0)
    late.setblocking(False)
    with late, pytest.raises(ConnectionResetError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(late, 1), 5)
    server.close()
