"""Redis, two runners, and two gateways that differ in one setting: real processes on loopback."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.decode.checkpoint import ROOT

ILVR = str(Path(sys.executable).parent / "ilvr")
START_S, STOP_S = 240.0, 10.0
LOOK_S = 0.25


@dataclass(frozen=True)
class Fleet:
    """``gateways``: URLs, by the seconds for which a job waits for a runner that knows its pictures."""

    gateways: dict[float, str]
    runners: list[str]


@contextmanager
def fleet(affinities_s: Sequence[float], num_runners: int) -> Iterator[Fleet]:
    """All ready; nothing of it is left at the end. Raises ``RuntimeError`` with the log of what did not start."""
    server = shutil.which("redis-server")
    if server is None:
        raise RuntimeError("redis-server is not installed")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        redis, *ports = free_ports(1 + len(affinities_s) + num_runners)
        redis_command = [server, "--port", str(redis), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        stack.enter_context(process("redis", redis_command, folder))
        url = {"ILVR_BROKER_REDIS_URL": f"redis://127.0.0.1:{redis}/0"}
        gateways: dict[float, str] = {}
        runners: list[str] = []
        started: list[tuple[str, str]] = []
        for index in range(num_runners):
            port = ports.pop()
            name, command = f"runner-{index}", [ILVR, "runner", "--metrics-port", str(port), "--kv-cache-mib", "256"]
            stack.enter_context(process(name, command, folder, **url))
            runners.append(f"http://127.0.0.1:{port}")
            started.append((name, runners[-1]))
        for affinity_s in affinities_s:
            port = ports.pop()
            name, command = f"gateway-{affinity_s:g}", [ILVR, "gateway", "--port", str(port)]
            setting = {"ILVR_BROKER_REDIS_AFFINITY_S": str(affinity_s)}
            stack.enter_context(process(name, command, folder, **url, **setting))
            gateways[affinity_s] = f"http://127.0.0.1:{port}"
            started.append((name, gateways[affinity_s]))
        for name, address in started:
            until_ready(address, folder / f"{name}.log")
        yield Fleet(gateways, runners)


@contextmanager
def process(name: str, command: Sequence[str], folder: Path, **variables: str) -> Iterator[None]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **variables}
    with (folder / f"{name}.log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def until_ready(address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
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
