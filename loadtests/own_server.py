"""``ilvr serve`` on a free port for the length of a load, when no server was named."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READY = re.compile(r"ilvr is ready: (\S+)")
START_S = 240.0
STOP_S = 60.0


@contextmanager
def own_server() -> Iterator[str]:
    """Its address. Raises ``RuntimeError`` with its output: it did not start."""
    command = [str(Path(sys.executable).parent / "ilvr"), "serve", "--port", "0"]
    with tempfile.NamedTemporaryFile("w", prefix="ilvr-serve-", suffix=".log") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield _address(process, Path(output.name))
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """However long it takes to stop: the results of a load are worth more than that."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"loadtests: ilvr serve did not stop within {STOP_S:g} s and was killed", file=sys.stderr)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found := READY.search(log.read_text()):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"ilvr serve did not become ready:\n{log.read_text()}")
