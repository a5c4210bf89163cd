"""Servers of a benchmark: real processes on loopback, none of which is left at the end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from benchmarks.decode.checkpoint import ROOT

ILVR = str(Path(sys.executable).parent / "ilvr")
START_S, STOP_S = 240.0, 10.0
LOOK_S = 0.25


@contextmanager
def process(name: str, command: Sequence[str], folder: Path, **variables: str) -> Iterator[int]:
    """Its number. What it prints goes to ``NAME.log`` in the folder."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **variables}
    with (folder / f"{name}.log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield running.pid
    finally:
        running.terminate()
        try:
            running.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def until_ready(url: str, log: Path) -> None:
    """Returns when it answers 200. Raises ``RuntimeError`` with the log if that takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(LOOK_S)
    raise RuntimeError(f"{log.stem} did not become ready:\n{log.read_text(errors='replace')[-2000:]}")


def free_ports(count: int) -> list[int]:
    """All different."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
