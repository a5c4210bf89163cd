"""HAProxy with ``deploy/proxy/haproxy.cfg`` itself, in front of servers that the test holds in its hands.

Only the addresses are others: free ports of loopback, and servers by number where the file has a name of the network.
"""

import http.client
import re
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.broker.redis_server import free_port
from tests.deploy.tools import DEPLOY, program
from tests.deploy.waiting import until

NUM_EVENTS = 8
WAIT_S = 20.0


class Gateway(ThreadingHTTPServer):
    """Sends an event only after the test has seen the one before it, so a proxy that buffers stops it for good."""

    daemon_threads = True

    def __init__(self, name, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.name, self.port = name, self.server_address[1]
        self.seen = threading.Semaphore(0)
        self.got = threading.Event()
        self.ready = (200, '{"status": "ready"}')
        self.num_questions = 0

    def handle_error(self, request, client_address):
        """A client that leaves early is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/readyz":
            self._answer(*self.server.ready)
        else:
            self._answer(200, self.server.name)

    def do_POST(self):
        self.server.num_questions += 1
        half = int(self.headers["Content-Length"]) // 2
        self.rfile.read(half)
        self.server.got.set()
        self.rfile.read(int(self.headers["Content-Length"]) - half)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(NUM_EVENTS):
            event = f"id: {number}\ndata: {{}}\n\n".encode()
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            if not self.server.seen.acquire(timeout=WAIT_S):
                return  # the connection breaks, and the client fails
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        """The test's output is not for it."""


@contextmanager
def serving(name, port=0):
    gateway = Gateway(name, port)
    threading.Thread(target=gateway.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield gateway
    finally:
        gateway.shutdown()
        gateway.server_close()


@contextmanager
def proxied(folder, *ports):
    """URLs of the proxy and of its own pages, when it has found all gateways up."""
    api, operation = free_port(), free_port()
    text = (DEPLOY / "proxy/haproxy.cfg").read_text()
    servers = "".join(f"    server gateway{number} 127.0.0.1:{port}\n" for number, port in enumerate(ports))
    text, num_templates = re.subn(r"    server-template gateway 8 gateway:8000\n", servers, text)
    assert num_templates == 1
    text = text.replace("bind :8080", f"bind 127.0.0.1:{api}").replace("bind :8405", f"bind 127.0.0.1:{operation}")
    text = text.replace("init-addr none resolvers network resolve-prefer ipv4", "")
    (folder / "haproxy.cfg").write_text(text)
    with (folder / "log").open("w") as log:
        command = [program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{api}"
        until(lambda: httpx.get(f"{url}/x").status_code == 200, process, folder / "log")
        yield url, f"http://127.0.0.1:{operation}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def two(tmp_path):
    """Two gateways, the proxy's URL, and that of its pages."""
    with ExitStack() as stack:
        gateways = [stack.enter_context(serving(name)) for name in ("one", "two")]
        url, pages = stack.enter_context(proxied(tmp_path, *(gateway.port for gateway in gateways)))
        yield gateways, url, pages


def status_of(url, path):
    """Of a path that is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(url).port, timeout=WAIT_S)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def named(url, path="/who"):
    return httpx.get(f"{url}{path}").text


def test_each_event_arrives_before_the_next_is_sent(two):
    (first, second), url, _ = two
    numbers = []
    with httpx.stream("POST", url, content=b"a question", timeout=WAIT_S) as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                numbers.append(int(line[4:]))
                first.seen.release()
                second.seen.release()
    assert numbers == list(range(NUM_EVENTS))
    assert first.num_questions + second.num_questions == 1


def test_a_body_arrives_while_it_is_sent(two):
    (first, second), url, _ = two
    port = httpx.URL(url).port
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        deadline = time.monotonic() + WAIT_S
        while not (first.got.is_set() or second.got.is_set()):
            assert time.monotonic() < deadline, "the first half is held back until the second is there"
            time.sleep(0.01)


def test_a_gateway_that_is_gone_costs_no_request(two):
    (first, _), url, _ = two
    first.shutdown()
    first.server_close()
    assert [named(url) for _ in range(6)] == ["two"] * 6


def test_a_gateway_that_says_it_stops_gets_no_more_and_one_without_a_runner_does(two):
    (first, second), url, _ = two
    first.ready = (503, '{"error": {"message": "This gateway is stopping."}}')
    second.ready = (503, '{"error": {"message": "No model is ready to answer."}}')
    time.sleep(3.5)  # it looks once a second, and believes the second time
    assert [named(url) for _ in range(6)] == ["two"] * 6
    first.ready = second.ready = (200, "ready")
    time.sleep(2.5)
    assert {named(url) for _ in range(6)} == {"one", "two"}


def test_metrics_are_for_who_asks_the_gateways_and_the_proxy_has_its_own(two):
    _, url, pages = two
    for path in ("/metrics", "/metrics?x=1", "/%6detrics"):
        assert status_of(url, path) == 404
    assert status_of(url, "/metrics2") == 200
    assert httpx.get(f"{pages}/healthz").status_code == 200
    assert "haproxy_backend_active_servers" in httpx.get(f"{pages}/metrics").text
    assert httpx.get(f"{pages}/other").status_code == 404
