"""A gateway with an engine that keeps time, on one core: ``python -m benchmarks.gateway.server PORT EVENTS_PER_S``.

All of it is what ``ilvr serve`` runs, in its one event loop, but for the engine: that says a word of each response at a
fixed rate, and the word is the time at which it was due. Prints its port. SIGUSR1 makes it say something; SIGTERM ends.
"""

import argparse
import asyncio
import cProfile
import os
import pstats
import signal
import time
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from broker.measured import measured
from contracts.broker import Broker, RunnerStatus
from contracts.events import InProgress, StepDelta, StepStarted
from contracts.jobs import Lease
from ilvr.processes.collector import settle_collector
from ilvr.processes.listener import bind
from ilvr.processes.signals import StopSignals
from ilvr.processes.web_server import WebServer
from service.app import create_app
from service.settings import ServiceSettings

CORE = 0
MAX_STREAMS = 100_000
RUNNER = "clock"
# A batch of an engine says a word of all its responses at once; here there are so many batches, one after the other.
BATCHES = 10
NUM_FUNCTIONS = 25  # of a profile


class Clock:
    """A runner whose words are the times at which they were due, in seconds of the monotonic clock."""

    def __init__(self, broker: Broker, events_per_s: float) -> None:
        self._broker = broker
        self._tick_s = 1 / events_per_s / BATCHES
        self._batches: list[list[Lease]] = [[] for _ in range(BATCHES)]
        self.is_speaking = asyncio.Event()

    async def beat(self) -> None:
        while True:
            await self._broker.heartbeat(
                RunnerStatus(
                    runner_id=RUNNER,
                    model="clock",
                    is_ready=True,
                    num_running=0,
                    max_num_seqs=MAX_STREAMS,
                    latent_size=8,
                    latent_exit="fixed",
                    latent_ablation="none",
                    engine="clock",
                )
            )
            await asyncio.sleep(1)

    async def take(self) -> None:
        number = 0
        while True:
            for lease in await self._broker.take(RUNNER, room=MAX_STREAMS):
                told = lease.job.response_id
                begin = [
                    InProgress(response_id=told, queue_ms=0, cached_tokens=0),
                    StepStarted(response_id=told, index=0, step_type="text"),
                ]
                await self._broker.publish(lease, begin)
                self._batches[number % BATCHES].append(lease)
                number += 1

    async def speak(self) -> None:
        await self.is_speaking.wait()
        began, number = time.monotonic(), 0
        while True:
            due = began + number * self._tick_s
            await asyncio.sleep(due - time.monotonic())
            text = f"{due:.4f}"
            for lease in self._batches[number % BATCHES]:
                await self._broker.publish(lease, [StepDelta(response_id=lease.job.response_id, index=0, text=text)])
            number += 1


async def serve(port: int, events_per_s: float, num_log_bytes: int) -> None:
    registry = CollectorRegistry()
    limits = BrokerLimits(max_waiting=MAX_STREAMS, max_finished_bytes=num_log_bytes)
    broker = measured(EmbeddedBroker(limits), registry, max_waiting=MAX_STREAMS)
    clock = Clock(broker, events_per_s)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, clock.is_speaking.set)
    tasks = [asyncio.create_task(work) for work in (clock.beat(), clock.take(), clock.speak())]
    signals = StopSignals()
    listener = bind("127.0.0.1", port)
    number = listener.getsockname()[1]
    server = WebServer(
        create_app(broker, ServiceSettings(), registry),
        listener,
        grace_s=0,
        on_started=lambda: print(number, flush=True),
    )
    settle_collector()
    await server.run_until(signals.asked.wait(), signals, end_open=broker.aclose)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("events_per_s", type=float)
    parser.add_argument("--profile", type=Path, help="file to write it to")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {CORE})
    if not asked.profile:
        uvloop.run(serve(0, asked.events_per_s, 0))
        return
    profile = cProfile.Profile()
    with profile:
        uvloop.run(serve(0, asked.events_per_s, 0))
    with asked.profile.open("w") as file:
        pstats.Stats(profile, stream=file).strip_dirs().sort_stats("tottime").print_stats(NUM_FUNCTIONS)


if __name__ == "__main__":
    main()
