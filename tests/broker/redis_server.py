"""A real ``redis-server`` on a free port of loopback, which tests start, stop, pause and kill."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

START_S = 15.0
MISSING = "redis-server is not installed: run `make setup` as root, or apt-get install redis-server"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class RedisServer:
    """``is_persistent``: it writes an append-only file in ``folder`` and reads it at its next start.

    A server that is not there fails the test; there is nothing to skip to.
    """

    def __init__(
        self, folder: Path, *, is_persistent: bool = False, password: str | None = None, options: tuple[str, ...] = ()
    ) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._is_persistent = is_persistent
        self._password = password
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Returns when it answers. Raises ``RuntimeError`` with its log."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError(MISSING)
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        command += ["--appendonly", "yes" if self._is_persistent else "no", *self._options]
        if self._password:
            command += ["--requirepass", self._password]
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """As an operator does: SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def send(self, command: str) -> None:
        """An inline command, of whose answer nothing is seen: it may never come."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall((command + "\r\n").encode())
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.1)

    def command(self, *words: str) -> bytes:
        """The first bytes of the answer to an inline command, e.g. ``FLUSHALL``."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            if self._password:
                connection.sendall(f"AUTH {self._password}\r\n".encode())
                connection.recv(100)
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(65536)

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            if number == signal.SIGTERM:
                process.send_signal(signal.SIGCONT)  # it may be paused
            process.wait(timeout=START_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def fresh_prefix() -> str:
    """A key prefix that no other test has, so that many share a server."""
    return f"test-{secrets.token_hex(6)}"
