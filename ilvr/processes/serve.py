"""``ilvr serve`` put together: gateway, broker and runner in one event loop, the engine process below it."""

import asyncio
import socket
from collections.abc import Callable

import uvloop
from prometheus_client import CollectorRegistry

from broker.measured import measured
from broker.open import open_broker
from broker.settings import BrokerSettings
from ilvr.processes.collector import settle_collector
from ilvr.processes.listener import address, bind
from ilvr.processes.signals import StopSignals, signals_end_loading
from ilvr.processes.web_server import WebServer
from ilvr.processes.work import running
from ilvr.telemetry import telemetry
from model_runner.attempt import Answering
from model_runner.main import make_runner, start_engine
from model_runner.metrics import RunnerMetrics
from model_runner.settings import RunnerSettings
from service.app import create_app
from service.settings import ServiceSettings

SHUTDOWN_GRACE_S = 5.0  # for what is running when the signal comes; then it is given back


def serve(
    runner_settings: RunnerSettings,
    service_settings: ServiceSettings,
    broker_settings: BrokerSettings,
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM; then take no more, let what runs finish for a while, and leave no process behind.

    ``on_ready`` is called once with the address, when the engine answers. Raises ``StartError`` before anything is
    served: a bad checkpoint, or a port that is taken.
    """
    listener = bind(host, port)
    with telemetry("serve") as registry:
        with signals_end_loading():
            tools = start_engine(runner_settings)
        uvloop.run(_serve(runner_settings, service_settings, broker_settings, registry, tools, listener, on_ready))


async def _serve(
    runner_settings: RunnerSettings,
    service_settings: ServiceSettings,
    broker_settings: BrokerSettings,
    registry: CollectorRegistry,
    tools: Answering,
    listener: socket.socket,
    on_ready: Callable[[str], None],
) -> None:
    try:
        broker = measured(await open_broker(broker_settings), registry, max_waiting=broker_settings.max_waiting)
        runner = make_runner(runner_settings, broker=broker, tools=tools, metrics=RunnerMetrics(registry))
        async with running(runner.run()) as work:
            await runner.announce()  # so that the first request finds a model

            signals = StopSignals()
            draining: set[asyncio.Task[None]] = set()

            def begin_stop() -> None:
                draining.add(asyncio.create_task(runner.drain(SHUTDOWN_GRACE_S), name="drain"))

            async def end_open() -> None:
                # What runs in the background has no connection that would be waited for, but has the same grace.
                insisted = asyncio.create_task(signals.insisted.wait())
                await asyncio.wait({*draining, insisted}, return_when=asyncio.FIRST_COMPLETED)
                work.cancel()  # what it still works on is given back, and where nobody else is, it fails
                await asyncio.wait({*draining, work})
                insisted.cancel()
                await broker.aclose()

            server = WebServer(
                create_app(broker, service_settings, registry),
                listener,
                grace_s=SHUTDOWN_GRACE_S,
                on_started=lambda: on_ready(address(listener)),
            )
            settle_collector()
            await server.run_until(signals.asked.wait(), signals, begin_stop=begin_stop, end_open=end_open)
    finally:
        await tools.engine.aclose()
