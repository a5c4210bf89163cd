"""Clients that stop reading: bounded memory, nobody else waits for them, and after a while they are dropped."""

import asyncio
import socket
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI

from contracts.responses import TextStep
from service.settings import ServiceSettings
from service.write_timeout import DroppableProtocol
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import GRACE_S, serving, until
from tests.service.helpers import live_frames

WRITE_TIMEOUT_S = 1.0
MIB = 1 << 20
LONG = TextStep(index=0, text="x" * (6 * MIB))  # far more than sockets and buffers hold
# More than small sockets hold, and too little for uvicorn to hold the answer back.
SHORT = TextStep(index=0, text="x" * 40_000)


class SmallBufferProtocol(DroppableProtocol):
    """What the kernel takes of an answer is a few KiB; the rest is this process's."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connection_made(transport)


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    return settings.model_copy(update={"write_timeout_s": WRITE_TIMEOUT_S})


def connect(client: httpx.AsyncClient) -> socket.socket:
    """A client with a small window, which reads nothing by itself."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", client.base_url.port))
    connection.setblocking(False)
    return connection


def ask(connection: socket.socket, *, stream: bool, then: str = "keep-alive") -> None:
    body = b'{"question": "?", "stream": %s}' % (b"true" if stream else b"false")
    connection.send(
        b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nConnection: %s\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (then.encode(), len(body), body)
    )


async def is_cut(connection: socket.socket, answer: TextStep = LONG) -> bool:
    """Whether the other side has ended the connection before all was sent; what had arrived can still be read."""
    loop = asyncio.get_running_loop()
    num_bytes = 0
    with suppress(ConnectionResetError):
        while part := await asyncio.wait_for(loop.sock_recv(connection, MIB), 5):
            num_bytes += len(part)
    return num_bytes < len(answer.text)


@pytest.mark.parametrize("stream", [True, False])
async def test_one_that_reads_nothing_is_dropped(
    stream: bool, live: httpx.AsyncClient, app: FastAPI, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.steps = [LONG]
    caplog.set_level("INFO", logger="service.write_timeout")
    with connect(live) as connection:
        ask(connection, stream=stream)
        await until(lambda: len(runner.jobs) == 1 and runner.num_working == 0)  # the runner does not wait for it
        await until(lambda: "dropped" in caplog.text)
        assert await is_cut(connection)
    assert app.state.gateway.metrics.http_in_flight._value.get() == 0
    assert app.state.gateway.metrics.readers._value.get() == 0


@pytest.mark.parametrize("ending", ["the connection is not kept", "the connection was kept", "its client is done"])
async def test_one_that_leaves_a_short_rest_is_dropped(
    ending: str, app: FastAPI, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest is too short to hold the answer back; to close such a connection waits until it is taken."""
    runner.steps = [SHORT]
    caplog.set_level("INFO", logger="service.write_timeout")
    keep_alive_s = 1 if ending == "the connection was kept" else 60
    async with serving(app, http=SmallBufferProtocol, keep_alive_s=keep_alive_s) as client:
        with connect(client) as connection:
            ask(connection, stream=False, then="close" if ending == "the connection is not kept" else "keep-alive")
            await until(lambda: len(runner.jobs) == 1 and app.state.gateway.metrics.http_in_flight._value.get() == 0)
            if ending == "its client is done":
                connection.shutdown(socket.SHUT_WR)
            await until(lambda: "dropped" in caplog.text)
            assert await is_cut(connection, SHORT)


async def test_one_that_takes_its_short_rest_slowly_gets_all(app: FastAPI, runner: ScriptedRunner) -> None:
    runner.steps = [SHORT]
    loop = asyncio.get_running_loop()
    async with serving(app, http=SmallBufferProtocol) as client:
        with connect(client) as connection:
            ask(connection, stream=False, then="close")
            answer, began = b"", loop.time()
            while part := await asyncio.wait_for(loop.sock_recv(connection, 4096), 5):
                answer += part
                await asyncio.sleep(WRITE_TIMEOUT_S / 3)
    assert answer.endswith(b"}")
    assert SHORT.text.encode() in answer
    assert loop.time() - began > 2.5 * WRITE_TIMEOUT_S


async def test_its_response_is_cancelled_as_of_one_that_left(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.steps = [LONG, LONG]
    runner.delay_s = 0.5
    with connect(live) as connection:
        ask(connection, stream=True)
        await until(lambda: runner.num_working == 1)
        await until(lambda: runner.num_working == 0)
    found = (await live.get(f"/v1/reason/{runner.jobs[0].response_id}")).json()
    assert found["status"] == "cancelled"


async def test_one_that_reads_slowly_gets_all(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    """It takes several times the timeout, but something is taken within each."""
    runner.steps = [TextStep(index=0, text="x" * (2 * MIB))]
    loop = asyncio.get_running_loop()
    with connect(live) as connection:
        ask(connection, stream=True)
        num_pauses, end, began = 0, b"", loop.time()
        while not end.endswith(b"\r\n0\r\n\r\n"):
            part = await asyncio.wait_for(loop.sock_recv(connection, MIB), 5)
            assert part
            end = (end + part)[-10:]
            if num_pauses < 6:
                num_pauses += 1
                await asyncio.sleep(WRITE_TIMEOUT_S / 2)
    assert loop.time() - began > 2.5 * WRITE_TIMEOUT_S


async def test_others_do_not_wait_for_it(live: httpx.AsyncClient, app: FastAPI, runner: ScriptedRunner) -> None:
    runner.steps = [LONG]
    connections = [connect(live) for _ in range(5)]
    for connection in connections:
        ask(connection, stream=True)
    await until(lambda: len(runner.jobs) >= 2 and runner.num_working == 0)
    runner.steps = [TextStep(index=0, text="short")]
    async with live.stream("POST", "/v1/reason", json={"question": "?", "stream": True}) as answer:
        assert [event.event async for event in live_frames(answer)][-1] == "response.completed"
    for connection in connections:
        connection.close()
    await until(lambda: app.state.gateway.metrics.readers._value.get() == 0)
    await asyncio.sleep(GRACE_S)
