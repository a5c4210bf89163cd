"""A request's head is read so far and no further, before anybody could say whose request it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.bounded_head import MAX_HEAD_BYTES, BoundedHeadProtocol
from tests.service.conftest import QuietServer, until

# More than the limit and what may be on its way in the kernel's buffers.
ENDLESS = 40_000_000
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"


async def counting_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of bytes of the body, which it reads."""
    num_bytes, more = 0, True
    while more:
        message = await receive()
        num_bytes += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(num_bytes).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(counting_app, port=0, http=BoundedHeadProtocol, lifespan="off", log_config=None, ws="none")
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = server.force_exit = True
    await serving


async def _read_until_cut(reader: asyncio.StreamReader) -> bytes:
    """It returns only if the server ends the connection."""
    told = b""
    with suppress(ConnectionError):
        while part := await reader.read(1000):
            told += part
    return told


@pytest.mark.parametrize(
    ("begin", "unit", "answer"),
    [
        (b"GET / HTTP/1.1\r\n", b"X-A: " + b"b" * 50 + b"\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nX-A: ", b"a" * 1000, b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nX-A", b"a" * 1000, b"HTTP/1.1 400 "),
        (b"GET /", b"a" * 1000, b"HTTP/1.1 400 "),
        (b"", b"\r\n" * 500, b""),
        (CHUNKED + b"1;", b"a" * 1000, b""),
        (CHUNKED + b"0\r\n", b"X-A: " + b"b" * 50 + b"\r\n", b""),
        (CHUNKED + b"0\r\nX-A: ", b"a" * 1000, b""),
    ],
    ids=["headers", "value", "name", "path", "blank lines", "chunk extension", "trailers", "trailer"],
)
async def test_what_has_no_end_is_refused(begin: bytes, unit: bytes, answer: bytes, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(_read_until_cut(reader))
    writer.write(begin)
    part = unit * (16_000 // len(unit))
    with suppress(ConnectionError):
        for _ in range(ENDLESS // len(part)):
            writer.write(part)
            await writer.drain()
    told = await reading
    assert told.startswith(answer)
    writer.transport.abort()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.post("/", content=b"abc")).text == "3"


async def test_what_has_an_end_is_read(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        for _ in range(3):  # on one connection
            large = {"X-A": "a" * (MAX_HEAD_BYTES - 1000)}
            answer = await client.post("/", content=b"x" * 500_000, headers=large)
            assert (answer.status_code, answer.text) == (200, "500000")


async def test_a_body_in_tiny_chunks_is_no_head(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    num_chunks = 50_000
    writer.write(CHUNKED + b"1\r\nx\r\n" * num_chunks + b"0\r\n\r\n")
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert await reader.readexactly(5) == str(num_chunks + 1).encode()
    writer.close()
    await writer.wait_closed()
