"""One process of the fleet: started, watched through its log, killed, paused, started again."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.servers import ROOT, descendants, is_alive

LOOK_S = 0.05
STOP_S = 60.0


class Process:
    """``command`` prints ``ready`` once it can be used. Its output goes to ``log``, or to ``output`` instead."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        variables: dict[str, str],
        folder: Path,
        *,
        ready: str,
        output: Path | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._variables = variables
        self._ready = ready
        self.log = folder / f"{name}.log"
        self.log.touch()
        self._output = output or self.log
        self._started_at = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        """Returns at once. In a session of its own, as a supervisor starts it."""
        self._started_at = self.log.stat().st_size
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**_inherited(), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def output(self) -> str:
        """What it has printed since its last start."""
        return self.log.read_bytes()[self._started_at :].decode(errors="replace")

    async def until_ready(self, timeout_s: float) -> None:
        """Raises ``AssertionError`` with its output."""
        deadline = time.monotonic() + timeout_s
        while self._ready not in self.output():
            if self.status is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not become ready (status {self.status}):\n{self.output()}")
            await asyncio.sleep(LOOK_S)

    async def until_ended(self, timeout_s: float = STOP_S) -> int:
        """The exit status. Raises ``AssertionError`` with its output."""
        deadline = time.monotonic() + timeout_s
        while self.status is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not end:\n{self.output()}")
            await asyncio.sleep(LOOK_S)
        return self.status

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def below(self) -> list[int]:
        """Ids of the processes that it has started and that are alive."""
        return [pid for pid in descendants(self.pid) if pid != self.pid and is_alive(pid)]

    def memory_mib(self) -> float:
        """Resident, of this process alone."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def mapped_files(self) -> str:
        """Shared libraries that it has loaded, among others."""
        return Path(f"/proc/{self.pid}/maps").read_text()

    def destroy(self) -> None:
        """Whatever state it is in, and all below it."""
        if self._process is None:
            return
        for pid in reversed(descendants(self._process.pid)):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(timeout=STOP_S)


def _inherited() -> dict[str, str]:
    """Without what vLLM, once a test of this process has loaded it, has every program below preload: torch's OpenMP."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
