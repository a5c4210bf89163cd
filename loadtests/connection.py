"""One request on a connection of its own, as from somebody who was not here before.

Standard library; under locust its sockets are gevent's, so that one that waits holds up nobody. A pool would hold up
who comes when it is empty, which is what an open loop must not do.
"""

import http.client
import json
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

KEY_VARIABLE = "ILVR_API_KEY"
CHUNK_BYTES = 64 << 10
# Of a slow reader: what the kernel holds for it, the least that Linux gives, and what it takes at once.
SLOW_BUFFER_BYTES, SLOW_BYTES = 2304, 64


class Connection:
    """Used for one request. ``timeout_s`` bounds each wait for the server, not the whole."""

    def __init__(self, host: str, timeout_s: float, *, is_slow: bool = False) -> None:
        parts = urlsplit(host)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._http = make(parts.hostname or "", parts.port, timeout=timeout_s)
        self._prefix = parts.path.rstrip("/")
        self._is_slow = is_slow
        self.num_bytes = 0

    def post(self, path: str, body: bytes, content_type: str) -> http.client.HTTPResponse:
        """Send it and wait for the head of the answer. Raises ``OSError`` or ``http.client.HTTPException``."""
        if self._is_slow:
            self._http.connect()
            self._http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        self._http.request("POST", self._prefix + path, body, {"Content-Type": content_type, **_authorization()})
        return self._http.getresponse()

    def get(self, path: str) -> http.client.HTTPResponse:
        self._http.request("GET", self._prefix + path, headers=_authorization())
        return self._http.getresponse()

    def lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The lines of a stream, each as soon as it is there."""
        waiting = b""
        while chunk := response.read1(SLOW_BYTES if self._is_slow else CHUNK_BYTES):
            self.num_bytes += len(chunk)
            *lines, waiting = (waiting + chunk).split(b"\n")
            yield from lines

    def close(self) -> None:
        self._http.close()


def _authorization() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}


def get_json(host: str, path: str, timeout_s: float = 10.0) -> object:
    """Raises ``OSError``: the server is not there, or does not answer with 200."""
    return json.loads(get_text(host, path, timeout_s))


def get_text(host: str, path: str, timeout_s: float = 10.0) -> str:
    """Raises ``OSError``: the server is not there, or does not answer with 200."""
    connection = Connection(host, timeout_s)
    try:
        response = connection.get(path)
        body = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{host}{path} answers {response.status}: {body[:200]}")
    return body
