"""Waiting for a process to be what it will be."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx

START_S = 60.0
LOOK_S = 0.1


def until(is_so: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises ``RuntimeError`` with the log when the process ends first, or after a minute."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            if is_so():
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start:\n{log.read_text()[-3000:]}")
        time.sleep(LOOK_S)
