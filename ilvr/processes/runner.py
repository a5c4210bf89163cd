"""``ilvr runner`` put together: an engine that takes jobs from the broker of a fleet, and pages for who watches it."""

import logging
import socket
from collections.abc import Callable

import uvloop
from prometheus_client import CollectorRegistry

from broker.measured import measured
from broker.open import open_broker
from broker.settings import BrokerSettings
from ilvr.processes.collector import settle_collector
from ilvr.processes.listener import bind
from ilvr.processes.signals import signals_end_loading
from ilvr.processes.working import work_until_stopped
from ilvr.telemetry import telemetry
from model_runner.attempt import Answering
from model_runner.main import make_runner, start_engine
from model_runner.metrics import RunnerMetrics
from model_runner.settings import RunnerSettings
from service.exposure import is_loopback

log = logging.getLogger(__name__)


def run_runner(settings: RunnerSettings, broker_settings: BrokerSettings, *, on_ready: Callable[[str], None]) -> int:
    """Work until SIGINT or SIGTERM, then drain; returns the exit status.

    ``on_ready`` is called once with the address of the pages, when the engine answers and the broker has heard of it.
    Returns 3 when the engine process is gone: its jobs are handed back, and a new process is needed, which is for the
    supervisor to start. An engine started anew in here would share a process with what its end has left.

    Raises ``StartError`` before any work is taken: a bad checkpoint, or a port that is taken.
    """
    listener = bind(settings.metrics_host, settings.metrics_port, option="--metrics-port")
    with telemetry("runner") as registry:
        if not is_loopback(settings.metrics_host):
            log.warning(
                "other machines can reach /metrics, /healthz and /readyz at %s (--metrics-host), which ask for no key: "
                "keep that port within your own network",
                settings.metrics_host or repr(settings.metrics_host),
            )
        with signals_end_loading():
            tools = start_engine(settings)
        return uvloop.run(_run(settings, broker_settings, registry, tools, listener, on_ready))


async def _run(
    settings: RunnerSettings,
    broker_settings: BrokerSettings,
    registry: CollectorRegistry,
    tools: Answering,
    listener: socket.socket,
    on_ready: Callable[[str], None],
) -> int:
    try:
        broker = measured(await open_broker(broker_settings), registry, max_waiting=broker_settings.max_waiting)
        runner = make_runner(settings, broker=broker, tools=tools, metrics=RunnerMetrics(registry))
        settle_collector()
        return await work_until_stopped(
            runner, tools.engine, broker, registry, listener, grace_s=settings.drain_grace_s, on_ready=on_ready
        )
    finally:
        await tools.engine.aclose()
