"""``ilvr runner``: an engine of a fleet."""

import argparse

from ilvr.broker_options import add_broker_arguments, broker_settings, require_redis
from ilvr.engine_options import add_engine_arguments, runner_settings, served

DESCRIPTION = """\
Start a runner: one engine that takes jobs from a Redis server whenever it has room, and serves no API itself. Without
--model it is the embedded maze model.

examples:
  ilvr runner --redis-url redis://127.0.0.1:6379/0
  ilvr runner --redis-url redis://127.0.0.1:6379/0 --model /data/ilvr-7b --dtype bfloat16 --metrics-port 9001

When its engine answers and Redis has heard of it, it prints one line. /healthz, /readyz and /metrics are on a port of
their own. SIGTERM: it takes no more, has ILVR_RUNNER_DRAIN_GRACE_S to finish what runs, hands back the rest to other
runners and exits with 0. When its engine process dies it hands back its jobs and exits with 3: let a supervisor start
it again. Every option is also an environment variable (ILVR_RUNNER_MAX_NUM_SEQS=128).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr runner``."""
    add_broker_arguments(parser)
    parser.add_argument("--metrics-host", metavar="HOST", help="address of its pages (default 127.0.0.1)")
    parser.add_argument(
        "--metrics-port", type=int, metavar="N", help="port of its pages; 0 takes a free one (default 8001)"
    )
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Work until told to end. Raises ``StartError``."""
    from model_runner.environment import set_environment

    settings, broker = runner_settings(args), require_redis(broker_settings(args))
    set_environment()
    from ilvr.processes.ready_line import tell_ready
    from ilvr.processes.runner import run_runner

    def on_ready(address: str) -> None:
        tell_ready(f"ilvr runner is ready: serves {served(settings)}; {address}/metrics, stop with Ctrl-C")

    return run_runner(settings, broker, on_ready=on_ready)
