"""A whole server without a model, on loopback, in a thread of its own: commands are tested as a user runs them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import uvicorn
from PIL import Image
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from service.app import create_app
from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import QuietServer

T = TypeVar("T")


class ServerThread(threading.Thread):
    """``call`` runs a function in the server's event loop, where its objects may be touched."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.is_started = threading.Event()
        self.url = ""
        self.runner: ScriptedRunner
        self.broker: EmbeddedBroker

    def run(self) -> None:
        asyncio.run(self._serve())

    def call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    def stop(self) -> None:
        self._server.should_exit = True
        self.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.broker = EmbeddedBroker()
        self.runner = ScriptedRunner(self.broker)
        await self.runner.start()
        app = create_app(self.broker, ServiceSettings(), CollectorRegistry())
        config = uvicorn.Config(app, port=0, log_config=None, ws="none", timeout_graceful_shutdown=1)
        self._server = QuietServer(config)
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        self.is_started.set()
        await serving
        await self.runner.aclose()
        await self.broker.aclose()


@pytest.fixture
def server() -> Iterator[ServerThread]:
    thread = ServerThread()
    thread.start()
    assert thread.is_started.wait(10)
    yield thread
    thread.stop()


@pytest.fixture
def maze(tmp_path: Path) -> str:
    path = tmp_path / "maze.png"
    Image.new("RGB", (112, 112), "white").save(path)
    return str(path)
