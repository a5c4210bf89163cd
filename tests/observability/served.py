"""A gateway with its broker and a scripted runner in one process, with logs and metrics as `ilvr serve` has them."""

import uvloop
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from ilvr.processes.listener import address, bind
from ilvr.processes.signals import StopSignals
from ilvr.processes.web_server import WebServer
from ilvr.telemetry import telemetry
from service.app import create_app
from service.settings import load_settings
from tests.scripted_runner import ScriptedRunner


async def serve(registry: CollectorRegistry) -> None:
    broker = EmbeddedBroker()
    runner = ScriptedRunner(broker, room=64)
    await runner.start()
    listener = bind("127.0.0.1", 0)
    signals = StopSignals()
    app = create_app(broker, load_settings(), registry)
    server = WebServer(app, listener, grace_s=1.0, on_started=lambda: print("at", address(listener), flush=True))
    await server.run_until(signals.asked.wait(), signals, end_open=broker.aclose)
    await runner.aclose()


if __name__ == "__main__":
    with telemetry("gateway") as registry:
        uvloop.run(serve(registry))
