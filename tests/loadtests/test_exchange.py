"""What one request came to where an answer is not the server's own."""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.exchange import Exchange
from loadtests.mix import mixed
from loadtests.profile import Profile, Stage
from loadtests.recorder import Recorder

PROFILE = Profile(stages=[Stage(seconds=1, level=1)], kinds={"json": 1})


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "outcome", "reason"),
    [
        (503, b"<html>no server is available</html>", "refused", "503"),
        (429, b'{"error": {"code": "queue_full"}}', "refused", "429 queue_full"),
        (503, b'{"error": "no"}', "refused", "503"),
        (500, b"[]", "failed", "500"),
        (200, b"<html>", "failed", "an answer that cannot be read"),
    ],
)
def test_an_answer_of_a_proxy_is_what_its_status_says(status: int, body: bytes, outcome: str, reason: str) -> None:
    with answering(status, body) as host:
        exchange = Exchange(host, "m", PROFILE, mixed(PROFILE)(0), Recorder(1.0), began_at=time.monotonic(), due_s=0.0)
        exchange.run()
    assert exchange.outcome == outcome
    assert exchange.reason is not None
    assert exchange.reason.startswith(reason)
    assert status == 200 or exchange.reason == reason
