"""``ilvr gateway``: the HTTP API of a fleet."""

import argparse

from ilvr.broker_options import add_broker_arguments, broker_settings, require_redis
from ilvr.defaults import DEFAULT_HOST, DEFAULT_PORT

DESCRIPTION = """\
Start a gateway: the HTTP API, on a Redis server that it shares with other gateways and with runners. It needs no
engine. Start as many as you like, in any order: any of them can follow, resume or cancel any response.

examples:
  ilvr gateway --redis-url redis://127.0.0.1:6379/0
  ILVR_BROKER_REDIS_URL=redis://:secret@redis:6379/0 ilvr gateway --host 0.0.0.0 --port 8000

When it listens it prints one line with its address. While Redis cannot be reached, or no runner is ready, /readyz says
503 with the reason. SIGTERM: /readyz says 503, then (ILVR_SERVICE_DRAIN_DELAY_S) no connection is accepted, and open
streams have ILVR_SERVICE_DRAIN_GRACE_S to finish; a client that is cut off resumes at another gateway.
Limits of requests are ILVR_SERVICE_* variables, those of the queue ILVR_BROKER_* variables.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr gateway``."""
    add_broker_arguments(parser)
    parser.add_argument("--host", default=DEFAULT_HOST, help=f"address to listen on (default {DEFAULT_HOST})")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"port; 0 takes a free one (default {DEFAULT_PORT})"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to end. Raises ``StartError``."""
    from ilvr.processes.gateway import run_gateway
    from ilvr.processes.ready_line import tell_ready
    from service.exposure import check_exposure
    from service.settings import load_settings

    broker, settings = require_redis(broker_settings(args)), load_settings()
    check_exposure(args.host, settings)

    def on_ready(address: str) -> None:
        tell_ready(f"ilvr gateway is ready: {address}; try {address}/docs, stop with Ctrl-C")

    run_gateway(settings, broker, host=args.host, port=args.port, on_ready=on_ready)
    return 0
