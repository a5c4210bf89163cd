"""``ilvr serve``: everything in one process tree."""

import argparse

from ilvr.broker_options import add_broker_arguments, broker_settings
from ilvr.defaults import DEFAULT_HOST, DEFAULT_PORT
from ilvr.engine_options import add_engine_arguments, runner_settings, served

DESCRIPTION = """\
Start gateway, broker and engine with one command. Without --model it serves the embedded maze model, about 1 M
parameters trained by this project, which needs no GPU and no download.

examples:
  ilvr serve
  ilvr serve --model /data/ilvr-7b --port 9000 --dtype bfloat16
  ilvr serve --latent-exit fixed --max-num-seqs 128
  ilvr serve --latent-ablation swap        for evaluation: does the answer depend on the latents at all?

When it is ready it prints one line with its address. Ctrl-C or SIGTERM ends it and every process it started.
Every option is also an environment variable (ILVR_RUNNER_MAX_NUM_SEQS=128); limits of requests are
ILVR_SERVICE_* variables, those of the queue ILVR_BROKER_* variables. With a Redis server it is a gateway and a runner
of a fleet in one process.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr serve``."""
    parser.add_argument("--host", default=DEFAULT_HOST, help=f"address to listen on (default {DEFAULT_HOST})")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"port; 0 takes a free one (default {DEFAULT_PORT})"
    )
    add_engine_arguments(parser)
    add_broker_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until told to end. Raises ``StartError``."""
    from model_runner.environment import set_environment
    from service.exposure import check_exposure
    from service.settings import load_settings

    runner, broker = runner_settings(args), broker_settings(args)
    # One bound for both: a request that the gateway admits must not fail in the engine.
    service = load_settings()
    service = load_settings(max_images=min(service.max_images, runner.max_images))
    check_exposure(args.host, service)
    set_environment()
    from ilvr.processes.ready_line import tell_ready
    from ilvr.processes.serve import serve

    def on_ready(address: str) -> None:
        tell_ready(f"ilvr is ready: {address} serves {served(runner)}; try {address}/docs, stop with Ctrl-C")

    serve(runner, service, broker, host=args.host, port=args.port, on_ready=on_ready)
    return 0
