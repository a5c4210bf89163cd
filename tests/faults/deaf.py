"""Clients that ask, stay connected and do not read."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.faults.process import Process

PATIENCE_S = 30.0


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post(path: str, body: dict[str, Any]) -> bytes:
    """The server closes the connection after its answer."""
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent


@contextlib.contextmanager
def deaf(url: str, request: bytes) -> Iterator[socket.socket]:
    """One client. The kernel takes little on its side of the connection."""
    address = urlsplit(url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((address.hostname, address.port))
        connection.sendall(request)
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """All that was sent, until the server closes. Raises ``TimeoutError`` if it does not."""
    connection.settimeout(PATIENCE_S)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


async def most_memory_mib(process: Process) -> float:
    """Until it is cancelled."""
    most = 0.0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            most = max(most, process.memory_mib())
            await asyncio.sleep(0.1)
    return most
