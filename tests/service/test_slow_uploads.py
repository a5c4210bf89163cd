"""Bodies that do not come to an end: they are waited for so long, and the room they took is then free again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from fastapi import FastAPI

from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import GRACE_S, until

BODY_TIMEOUT_S = 1.0
DRIP_S = 0.05
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
JSON = "application/json"
# Route, type, how the body begins, and what then comes of it byte by byte.
UPLOADS = {
    "json": ("/v1/reason", JSON, b'{"question": "', b"x"),
    "form": ("/v1/reason", FORM, PART, b"x"),
    "chat": ("/v1/chat/completions", JSON, b'{"messages": "', b"x"),
    "responses": ("/v1/responses", JSON, b'{"input": "', b"x"),
    "image": ("/v1/images", "image/png", b"\x89PNG", b"x"),
    "image in a form": ("/v1/images", FORM, PART, b"x"),
    "nothing": ("/v1/reason", JSON, b"", b""),
}


@pytest.fixture
def settings() -> ServiceSettings:
    """Room for one body of unknown length."""
    return ServiceSettings(
        max_body_bytes=200_000,
        image_max_bytes=150_000,
        max_intake_bytes=0,
        body_timeout_s=BODY_TIMEOUT_S,
        disconnect_grace_s=GRACE_S,
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


@asynccontextmanager
async def slow_upload(client: httpx.AsyncClient, name: str) -> AsyncIterator[asyncio.StreamReader]:
    """Something comes all the time, but never the end."""
    path, content_type, begin, drop = UPLOADS[name]

    async def drip() -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(chunk(drop))
                await writer.drain()
                await asyncio.sleep(DRIP_S)

    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode() + chunk(begin))
    dripping = asyncio.create_task(drip())
    try:
        yield reader
    finally:
        dripping.cancel()
        await asyncio.wait([dripping])
        writer.close()


@pytest.mark.parametrize("name", UPLOADS)
async def test_one_that_never_ends_is_refused_in_time(
    name: str, live: httpx.AsyncClient, app: FastAPI, runner: ScriptedRunner
) -> None:
    intake = app.state.gateway.intake
    async with slow_upload(live, name) as reader:
        await until(lambda: intake._num_bytes > 0)
        assert (await live.post("/v1/reason", json={"question": "?"})).status_code == 429
        async with asyncio.timeout(5 * BODY_TIMEOUT_S):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 408")
            assert b"\r\nconnection: close\r\n" in head
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            error = json.loads(await reader.readexactly(length))["error"]
        assert (error["code"], error["type"]) == ("body_too_slow", "invalid_request_error")
        assert "1 s" in error["message"]
        assert intake._num_bytes == 0
        assert (await live.post("/v1/reason", json={"question": "?"})).status_code == 200
        with suppress(ConnectionError):  # more of it is not taken, or the connection would be held as long
            async with asyncio.timeout(5):
                assert await reader.read() == b""
    assert len(runner.jobs) == 1


async def test_one_that_ends_in_time_is_answered(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for part in (b'{"question"', b': "Where', b'?"}'):
            yield part
            await asyncio.sleep(BODY_TIMEOUT_S / 5)

    answer = await live.post("/v1/reason", content=slowly(), headers={"Content-Type": JSON})
    assert answer.status_code == 200


async def test_the_time_of_an_answer_is_not_the_time_of_the_body(
    live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.delay_s = BODY_TIMEOUT_S / 3
    for stream in (False, True):
        began = asyncio.get_running_loop().time()
        answer = await live.post("/v1/reason", json={"question": "?", "stream": stream})
        assert answer.status_code == 200
        assert asyncio.get_running_loop().time() - began > BODY_TIMEOUT_S


async def test_a_body_that_nobody_reads_ends_no_stream(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    created = (await live.post("/v1/reason", json={"question": "?", "background": True})).json()
    reader, writer = await asyncio.open_connection("127.0.0.1", live.base_url.port)
    writer.write(f"GET /v1/reason/{created['id']}/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n".encode())
    await asyncio.sleep(1.5 * BODY_TIMEOUT_S)
    runner.resume()
    async with asyncio.timeout(5):
        assert b"event: response.completed" in await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
