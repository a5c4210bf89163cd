"""``ilvr gateway`` put together: the HTTP API on the broker of a fleet. No engine, no torch."""

import socket
from collections.abc import Callable

import uvloop
from prometheus_client import CollectorRegistry

from broker.measured import measured
from broker.open import open_broker
from broker.settings import BrokerSettings
from ilvr.processes.collector import settle_collector
from ilvr.processes.listener import address, bind
from ilvr.processes.signals import StopSignals
from ilvr.processes.web_server import WebServer
from ilvr.telemetry import telemetry
from service.app import create_app
from service.settings import ServiceSettings


def run_gateway(
    settings: ServiceSettings,
    broker_settings: BrokerSettings,
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM; then ``/readyz`` says so, and what is open has a grace to finish.

    ``on_ready`` is called once with the address, when it listens, whether or not the broker can be reached yet. A
    stream that the grace cuts off goes on at another gateway, where its client resumes. Raises ``StartError`` before
    anything is served: a port that is taken.
    """
    listener = bind(host, port)
    with telemetry("gateway") as registry:
        uvloop.run(_run(settings, broker_settings, registry, listener, on_ready))


async def _run(
    settings: ServiceSettings,
    broker_settings: BrokerSettings,
    registry: CollectorRegistry,
    listener: socket.socket,
    on_ready: Callable[[str], None],
) -> None:
    broker = measured(await open_broker(broker_settings), registry, max_waiting=broker_settings.max_waiting)
    app = create_app(broker, settings, registry)
    signals = StopSignals()
    server = WebServer(app, listener, grace_s=settings.drain_grace_s, on_started=lambda: on_ready(address(listener)))
    settle_collector()
    await server.run_until(
        signals.asked.wait(),
        signals,
        begin_stop=app.state.gateway.begin_stop,
        delay_s=settings.drain_delay_s,
        end_open=broker.aclose,
    )
