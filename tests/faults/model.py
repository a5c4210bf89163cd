"""A fleet with the embedded model, which two engines share the cores for, and 200 requests in flight."""

import asyncio
import base64
import contextlib
import io
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx

from contracts.maze_pictures import draw_maze
from contracts.mazes import distinct, run_path
from tests.faults import breaks
from tests.faults.fleet import ILVR, Fleet
from tests.faults.process import Process
from tests.faults.record import Request
from tests.faults.world import Pace, World

QUESTION = "Find a safe path from S to G."
NUM_MAZES = 24
VARIABLES = {
    "ILVR_BROKER_MAX_WAITING": "1000",
    # Answers take a moment: any grace would do for most, and then nothing is handed back or goes on elsewhere.
    "ILVR_RUNNER_DRAIN_GRACE_S": "0",
    "ILVR_SERVICE_PING_INTERVAL_S": "1",
    "ILVR_SERVICE_DRAIN_DELAY_S": "1",
    "ILVR_SERVICE_DRAIN_GRACE_S": "0",
    # Two engines and all else share the cores of this machine: a step may keep a runner from its heartbeat.
    "ILVR_BROKER_RUNNER_SILENCE_S": "15",
    # A runner that was started anew knows no picture, and one that knows them all has room: nothing would be broken.
    "ILVR_BROKER_REDIS_AFFINITY_S": "0",
}
PACE = Pace(in_flight=200, rate_per_s=150, patience_s=600, before_s=2, after_s=2, pause_s=60, outage_s=3)


def command(index: int, port: int) -> Sequence[str]:
    """Engines take what the others leave of the cores, so that what waits, waits for them and not in a client."""
    return [
        "nice",
        "-n",
        "10",
        ILVR,
        "runner",
        "--metrics-port",
        str(port),
        "--kv-cache-mib",
        "256",
        "--max-num-seqs",
        "8",
    ]


def body(number: int, picture: str) -> dict[str, object]:
    return {
        "question": QUESTION,
        "images": [{"type": "base64", "media_type": "image/png", "data": picture}],
        "stream": True,
        "temperature": 0,
        "metadata": {"n": str(number)},
    }


def kill_engine(runner: Process) -> None:
    os.kill(breaks.engine_process(runner), signal.SIGKILL)


@contextlib.contextmanager
def hold_engine(runner: Process) -> Iterator[None]:
    """SIGSTOP, as a step that takes long."""
    engine = breaks.engine_process(runner)
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # the runner has ended it
            os.kill(engine, signal.SIGCONT)


@contextlib.asynccontextmanager
async def model_world(folder: Path, *, output: Path | None = None) -> AsyncIterator[World]:
    """Right answers are what each maze got when nothing was broken, if that solves it."""
    fleet = Fleet(folder, command, VARIABLES, runner_start_s=300, output=output)
    async with fleet.running():
        known = await right_answers(fleet)

        def make(number: int) -> Request:
            picture, answer = known[number % len(known)]
            return Request(number, body(number, picture), answer)

        yield World(
            model="maze-tiny",
            fleet=fleet,
            pace=PACE,
            make=make,
            kill_engine=kill_engine,
            hold_engine=hold_engine,
            runs=dict,
        )


async def right_answers(fleet: Fleet) -> list[tuple[str, str]]:
    """Pictures and paths, from both gateways and, by the time all are asked, both runners."""
    mazes = distinct(4, "test", NUM_MAZES)
    async with httpx.AsyncClient(timeout=120) as http:

        async def ask(index: int) -> tuple[str, str] | None:
            file = io.BytesIO()
            draw_maze(mazes[index].rows).save(file, "PNG")
            picture = base64.b64encode(file.getvalue()).decode()
            url = f"{fleet.urls[index % 2]}/v1/reason"
            answer = await http.post(url, json={**body(-1, picture), "stream": False})
            assert answer.status_code == 200, answer.text
            path: str = answer.json()["answer"]
            return (picture, path) if run_path(mazes[index].rows, path) else None

        known = [one for one in await asyncio.gather(*map(ask, range(NUM_MAZES))) if one is not None]
    assert len(known) > NUM_MAZES / 2
    return known
