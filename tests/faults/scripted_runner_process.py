"""``ilvr runner`` with the scripted engine in the place of a model: everything else is the real thing.

SIGUSR1 ends the engine, as a kill of the engine process would.
"""

import argparse
import asyncio
import os
import secrets
import signal
import socket
import sys
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from broker.open import open_broker
from broker.settings import load_settings
from ilvr.processes.listener import bind
from ilvr.processes.ready_line import tell_ready
from ilvr.processes.working import work_until_stopped
from ilvr.telemetry import telemetry
from model_runner.metrics import RunnerMetrics
from model_runner.runner import Runner
from tests.faults.scripted_engine import ScriptedEngine, answering


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--max-num-seqs", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    args = parser.parse_args()
    with telemetry("runner") as registry:
        return uvloop.run(_run(args, registry, bind("127.0.0.1", args.metrics_port)))


async def _run(args: argparse.Namespace, registry: CollectorRegistry, listener: socket.socket) -> int:
    engine = ScriptedEngine(args.seconds, args.runs)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, engine.die)
    broker = await open_broker(load_settings())
    runner = Runner(
        runner_id=f"scripted-{os.getpid()}-{secrets.token_hex(2)}",
        broker=broker,
        tools=answering(engine),
        max_num_seqs=args.max_num_seqs,
        metrics=RunnerMetrics(registry),
    )
    try:
        return await work_until_stopped(
            runner,
            engine,
            broker,
            registry,
            listener,
            grace_s=float(os.environ.get("ILVR_RUNNER_DRAIN_GRACE_S", "10")),
            on_ready=lambda address: tell_ready(f"ilvr runner is ready: {address}"),
        )
    finally:
        await engine.aclose()


if __name__ == "__main__":
    sys.exit(main())
