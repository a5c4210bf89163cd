"""The gateway with the embedded broker and the scripted runner: in-process, and on a real socket where that matters."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from service.app import create_app
from service.settings import ServiceSettings
from service.write_timeout import DroppableProtocol
from tests.scripted_runner import ScriptedRunner

GRACE_S = 0.3
PING_S = 0.2


@pytest.fixture
def settings() -> ServiceSettings:
    return ServiceSettings(
        disconnect_grace_s=GRACE_S,
        ping_interval_s=PING_S,
        cancel_wait_s=1.0,
        max_body_bytes=400_000,
        image_max_bytes=200_000,
        image_max_pixels=1_000_000,
        image_max_side=4_000,
        max_images=3,
        question_max_chars=1_000,
    )


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(BrokerLimits(max_waiting=2))
    yield broker
    await broker.aclose()


@pytest.fixture
async def runner(broker: EmbeddedBroker) -> AsyncIterator[ScriptedRunner]:
    runner = ScriptedRunner(broker, room=2)
    await runner.start()
    yield runner
    await runner.aclose()


@pytest.fixture
async def app(broker: EmbeddedBroker, settings: ServiceSettings) -> AsyncIterator[FastAPI]:
    app = create_app(broker, settings, CollectorRegistry())
    yield app
    await app.state.gateway.aclose()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """In-process; an answer arrives whole."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


class QuietServer(uvicorn.Server):
    def capture_signals(self) -> Any:
        return nullcontext()  # they belong to pytest

    async def shutdown(self, sockets: Any = None) -> None:
        """What its grace did not close on a busy machine would be found open by whatever test runs when it is freed."""
        await super().shutdown(sockets)
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    app: FastAPI, http: type[DroppableProtocol] = DroppableProtocol, keep_alive_s: int = 5
) -> AsyncIterator[httpx.AsyncClient]:
    """On a socket: answers arrive as they are sent, and a client can leave."""
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        ws="none",
        http=http,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=1,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client
    server.should_exit = True
    await task


@pytest.fixture
async def live(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as client:
        yield client


async def until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for something that has no event of its own."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
