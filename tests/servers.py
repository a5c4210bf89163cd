"""``ilvr serve`` as a process of its own, as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
READY = re.compile(r"ilvr is ready: (\S+)")
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 30.0


@dataclass
class Server:
    """A running server. ``url`` is its address; ``lines`` what it has printed."""

    process: subprocess.Popen[str]
    url: str
    seconds_to_ready: float
    lines: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120.0)

    def async_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=120.0, limits=httpx.Limits(max_connections=None))

    def tree(self) -> list[int]:
        """Ids of the server's process and all below it that are alive."""
        return [pid for pid in descendants(self.process.pid) if is_alive(pid)]

    def interrupt_group(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=STOP_TIMEOUT_S)


@contextmanager
def running_server(*args: str, **variables: str) -> Iterator[Server]:
    """``ilvr serve ARGS`` on a free port, ready; ended at the end, with everything below it.

    ``variables`` are added to its environment.
    """
    started = time.monotonic()
    command = [str(Path(sys.executable).parent / "ilvr"), "serve", "--port", "0", "--kv-cache-mib", "64", *args]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **variables}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(process, lines, ready), daemon=True)
    reader.start()
    try:
        if not ready.wait(START_TIMEOUT_S) or process.poll() is not None:
            raise AssertionError(f"{' '.join(command)} did not become ready:\n{''.join(lines)}")
        url = next(match[1] for line in lines if (match := READY.search(line)))
        yield Server(process, url, time.monotonic() - started, lines)
    finally:
        left = descendants(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in left:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        reader.join(timeout=5)
        if process.stdout:
            process.stdout.close()


def _read(process: subprocess.Popen[str], lines: list[str], ready: threading.Event) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if READY.search(line):
            ready.set()
    ready.set()  # it ended: do not wait any longer


def descendants(pid: int) -> list[int]:
    """The process and all below it, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(after_name[1]), []).append(int(entry.name))
    found, open_ids = [], [pid]
    while open_ids:
        found.append(open_ids.pop())
        open_ids += children.get(found[-1], [])
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
