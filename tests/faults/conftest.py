"""A fleet with scripted engines, which is there in seconds; the one with a model is in ``test_model.py``."""

import base64
import io
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from tests.faults.fleet import Fleet
from tests.faults.process import Process
from tests.faults.record import Request
from tests.faults.verdict import read_runs
from tests.faults.world import Pace, World

WORDS = ("RRDD", "DDRR", "RDRD", "DRDR", "RDDR", "DRRD")
SECONDS = 2.0  # of an answer
VARIABLES = {
    "ILVR_BROKER_RUNNER_SILENCE_S": "3",
    "ILVR_BROKER_MAX_WAITING": "1000",
    "ILVR_RUNNER_DRAIN_GRACE_S": "1",  # less than an answer takes: some are handed back
    "ILVR_SERVICE_DISCONNECT_GRACE_S": "2",  # less than an answer takes with its turn in the queue
    "ILVR_SERVICE_PING_INTERVAL_S": "1",
    "ILVR_SERVICE_DRAIN_DELAY_S": "0.5",
    "ILVR_SERVICE_DRAIN_GRACE_S": "1",
}
PACE = Pace(in_flight=40, rate_per_s=40, patience_s=60, before_s=0.5, after_s=0.5, pause_s=6, outage_s=1)


def scripted_command(folder: Path, *, max_num_seqs: int = 16, seconds: float = SECONDS):
    def command(index: int, port: int) -> Sequence[str]:
        module = [sys.executable, "-m", "tests.faults.scripted_runner_process"]
        runs = folder / f"runs-{index}.txt"
        runs.touch()
        return [
            *module,
            *("--metrics-port", str(port), "--max-num-seqs", str(max_num_seqs)),
            *("--seconds", str(seconds), "--runs", str(runs)),
        ]

    return command


def scripted_request(number: int) -> Request:
    word = WORDS[number % len(WORDS)]
    return Request(
        number=number,
        body={
            "question": f"Say {word}, the {number}th",
            "images": [{"type": "base64", "media_type": "image/png", "data": picture(number % 8)}],
            "stream": True,
            "metadata": {"n": str(number)},
        },
        answer=word,
    )


def picture(shade: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (30 * shade, 0, 0)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def scripted_world(fleet: Fleet) -> World:
    return World(
        model="scripted",
        fleet=fleet,
        pace=PACE,
        make=scripted_request,
        kill_engine=_kill_scripted_engine,
        hold_engine=lambda _: nullcontext(),
        runs=lambda: read_runs(fleet.folder.glob("runs-*.txt")),
    )


def _kill_scripted_engine(runner: Process) -> None:
    runner.send(signal.SIGUSR1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("fleet")
    fleet = Fleet(folder, scripted_command(folder), VARIABLES, runner_start_s=30)
    async with fleet.running():
        yield scripted_world(fleet)
