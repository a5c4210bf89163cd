"""``ilvr serve`` put together: gateway, embedded broker and runner in one event loop, the engine process below it."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import NoReturn

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from contracts.errors import BadSettings
from model_runner.attempt import Answering
from model_runner.main import make_runner, start_engine
from model_runner.metrics import RunnerMetrics
from model_runner.settings import RunnerSettings
from service.app import create_app
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

SHUTDOWN_GRACE_S = 5.0  # for what is running when the signal comes; then it ends with response.failed
CONNECTION_GRACE_S = SHUTDOWN_GRACE_S + 5.0
BACKLOG = 2048
SIGNAL_EXIT_BASE = 128


def serve(
    runner_settings: RunnerSettings,
    service_settings: ServiceSettings,
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM; then end what is open, and leave no process behind.

    ``on_ready`` is called once with the address, when the engine answers. Raises ``StartError`` before anything is
    served: a bad checkpoint, or a port that is taken.
    """
    listener = _bind(host, port)  # before the model is loaded: a taken port should not cost half a minute
    with _signals_end_loading():
        tools = start_engine(runner_settings)
    uvloop.run(_serve(runner_settings, service_settings, tools, listener, on_ready))


async def _serve(
    runner_settings: RunnerSettings,
    service_settings: ServiceSettings,
    tools: Answering,
    listener: socket.socket,
    on_ready: Callable[[str], None],
) -> None:
    try:
        registry = CollectorRegistry()
        broker = EmbeddedBroker(BrokerLimits(max_waiting=service_settings.max_waiting))
        runner = make_runner(runner_settings, broker=broker, tools=tools, metrics=RunnerMetrics(registry))
        config = uvicorn.Config(
            create_app(broker, service_settings, registry),
            log_level="warning",
            timeout_graceful_shutdown=int(CONNECTION_GRACE_S),
            backlog=BACKLOG,
        )
        async with _running(runner.run()) as work:
            await runner.announce()  # so that the first request finds a model

            async def end_open() -> None:
                work.cancel()
                await asyncio.wait([work])  # it ends what it works on; the broker what is still queued
                await broker.aclose()

            server = _Server(config, on_started=lambda: on_ready(_address(listener)), end_open=end_open)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, server.stop)
            await server.serve(sockets=[listener])
        await broker.aclose()
    finally:
        await tools.engine.aclose()


class _Server(uvicorn.Server):
    """Uvicorn that leaves signals to us: its own handling ends the process before the engine is told."""

    def __init__(
        self, config: uvicorn.Config, *, on_started: Callable[[], None], end_open: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._end_open = end_open
        self._ending: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """The first signal lets what runs finish for a while; the second ends it at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._ending.add(asyncio.create_task(self._end(after_s=0 if self.force_exit else SHUTDOWN_GRACE_S)))

    async def _end(self, *, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._end_open()


@contextlib.asynccontextmanager
async def _running(work: Coroutine[None, None, NoReturn]) -> AsyncIterator[asyncio.Task[NoReturn]]:
    """The runner's loops as a task that ends with the block. That it ends sooner is a defect, and is logged."""

    def report(task: asyncio.Task[NoReturn]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the runner stopped: %r", error, exc_info=error)

    task = asyncio.create_task(work, name="runner")
    task.add_done_callback(report)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Port 0 takes a free one. Raises ``BadSettings``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise BadSettings(f"cannot bind {host}:{port}: {reason}; choose another with --host and --port") from error
    return listener


@contextlib.contextmanager
def _signals_end_loading() -> Iterator[None]:
    """While the model loads, a signal ends the process and its children at once.

    An exception would not do: vLLM waits for its engine process in ways that an exception leaves waiting.
    """

    def end(number: int, frame: object) -> NoReturn:
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(SIGNAL_EXIT_BASE + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
