"""No line of any process's log holds a key, a picture or a question: sent through all that can go well and badly.

A gateway and a runner as real processes on a real Redis; only the engine is scripted.
"""

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.faults.fleet import Fleet
from tests.service.api_keys import Keys
from tests.service.helpers import picture

MARK = "zanzibar"
QUESTION = f"Say RRDD, the 7th: {MARK} of the {MARK}s"
UNANSWERABLE = f"What of {MARK}?"  # the scripted engine fails on it, and quotes it
WAIT_S = 60.0


@pytest.fixture
def keys() -> Keys:
    keys = Keys()
    keys.add("web", "reason", "images", rate_per_minute=6000, burst=1000)
    keys.add("idle", "admin")
    return keys


@pytest_asyncio.fixture
async def fleet(keys: Keys, tmp_path: Path) -> AsyncIterator[Fleet]:
    def command(index: int, port: int) -> list[str]:
        start = "from contracts.logs import configure_logs; configure_logs('runner')"
        main = "from tests.faults.scripted_runner_process import main; raise SystemExit(main())"
        words = ["--metrics-port", str(port), "--max-num-seqs", "4", "--seconds", "0.2"]
        return [sys.executable, "-c", f"{start}; {main}", *words, "--runs", str(tmp_path / "runs.txt")]

    variables = {
        "ILVR_LOG_LEVEL": "debug",
        "ILVR_LOG_FORMAT": "json",
        "ILVR_SERVICE_API_KEYS": keys.setting,
        "ILVR_SERVICE_DOCS_NEED_KEY": "true",
        "ILVR_SERVICE_IMAGE_URL_HOSTS": "images.example.com",
        "ILVR_SERVICE_DRAIN_DELAY_S": "0",
        "ILVR_SERVICE_DRAIN_GRACE_S": "1",
    }
    fleet = Fleet(tmp_path, command, variables, num_gateways=1, num_runners=1, runner_start_s=WAIT_S)
    async with fleet.running():
        yield fleet


async def test_nothing_that_a_caller_sends_is_in_any_log(fleet: Fleet, keys: Keys) -> None:
    pixels = random.Random(7)
    file = picture(40, 40)
    broken = file[:60] + bytes(pixels.randrange(256) for _ in range(40)) + file[100:]  # its header is right
    key, wrong = keys.tokens["web"], "ilvr_" + "w" * 43
    headers = {"Authorization": f"Bearer {key}"}
    inline = {"type": "base64", "data": base64.b64encode(file).decode()}
    ask = {"question": QUESTION, "images": [inline], "metadata": {"n": f"{MARK}-meta"}}

    async with httpx.AsyncClient(base_url=fleet.urls[0], headers=headers, timeout=WAIT_S) as client:
        answer = await client.post("/v1/reason", json=ask)
        assert answer.json()["answer"] == "RRDD", answer.text
        response_id = answer.json()["id"]
        streamed = await client.post("/v1/reason", json={**ask, "stream": True}, headers={"Idempotency-Key": MARK})
        assert "response.completed" in streamed.text
        form = await client.post("/v1/reason", data={"question": QUESTION}, files={"image": (f"{MARK}.png", file)})
        assert form.status_code == 200
        image = {"type": "ref", "id": (await client.post("/v1/images", content=file)).json()["id"]}
        assert (await client.post("/v1/reason", json={**ask, "images": [image]})).status_code == 200

        query = f"api_key={key}&question={MARK}"
        for path in (
            f"/v1/reason/{response_id}",
            f"/v1/reason/{response_id}/events",
            "/v1/models",
            "/healthz",
            "/docs",
        ):
            await client.get(f"{path}?{query}")
        for sent in (
            {**ask, MARK: MARK},
            {**ask, "question": MARK * 10_000},
            {**ask, "model": MARK},
            {**ask, "images": [{"type": "base64", "data": MARK}]},
            {**ask, "images": [{"type": "base64", "data": base64.b64encode(MARK.encode()).decode()}]},
            {**ask, "images": [{"type": "ref", "id": f"img_{MARK}"}]},
            {**ask, "images": [{"type": "url", "url": f"https://elsewhere.example/{MARK}?token={key}"}]},
            {**ask, "previous_response_id": MARK},
            {**ask, "temperature": MARK},
        ):
            assert 400 <= (await client.post("/v1/reason", json=sent)).status_code < 500
        for body in (b"{" + QUESTION.encode(), QUESTION.encode(), b'{"question": "\xff' + MARK.encode()):
            bad = await client.post("/v1/reason", content=body, headers={"Content-Type": "application/json"})
            assert bad.status_code in (400, 422)
        await client.get(f"/v1/reason/{MARK}")
        await client.get(f"/{MARK}/{key}")
        for name in ("Authorization", "X-API-Key"):
            refused = await client.get("/v1/models", headers={"Authorization": "", name: f"Bearer {wrong}"})
            assert refused.status_code == 401
        assert (await client.get("/docs")).status_code == 403

        # What fails in the runner: a picture that cannot be decoded, and an engine that stumbles over the question.
        damaged = {"type": "base64", "data": base64.b64encode(broken).decode()}
        assert (await client.post("/v1/reason", json={**ask, "images": [damaged]})).status_code >= 400
        assert (await client.post("/v1/reason", json={"question": UNANSWERABLE})).status_code == 500

        async with client.stream("POST", "/v1/reason", json={**ask, "stream": True}):
            pass  # and gone
        _send_no_http(fleet.urls[0], f"{MARK} {key}")

        fleet.runners[0].send(signal.SIGUSR1)  # the engine dies while it answers
        await client.post("/v1/reason", json=ask)
        fleet.redis.kill()
        assert (await client.post("/v1/reason", json=ask)).status_code == 503
    fleet.gateways[0].send(signal.SIGTERM)
    await fleet.gateways[0].until_ended()

    gateway, runner = fleet.gateways[0].output(), fleet.runners[0].output()
    assert '"route": "/v1/reason"' in gateway
    assert '"event": "answered"' in runner
    assert "AssertionError: (message hidden" in runner  # it was told of, without what it quoted
    pieces = [
        MARK,
        "Looking at it",
        "So it is",
        key,
        wrong,
        keys.tokens["idle"],
        *_pieces(inline["data"]),
        *_pieces(damaged["data"]),
    ]
    for name, text in (("gateway", gateway), ("runner", runner)):
        found = [piece for piece in pieces if piece in text]
        assert found == [], f"{name}: {[line for line in text.splitlines() if any(p in line for p in found)][:3]}"
        for line in text.splitlines():
            if line.startswith("{"):
                json.loads(line)


def _pieces(text: str) -> list[str]:
    """Of a picture any part would be too much."""
    return [text[at : at + 24] for at in range(0, len(text) - 24, 24)]


def _send_no_http(url: str, text: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(f"{text}\r\n\r\n".encode())
        connection.recv(1000)


def test_keys_of_the_broker_are_in_no_line_either() -> None:
    """The address of a Redis that cannot be reached holds its password."""
    environment = {
        **os.environ,
        "ILVR_BROKER_REDIS_URL": f"redis://:{MARK}@127.0.0.1:1/0",
        "ILVR_LOG_LEVEL": "debug",
    }
    command = [str(Path(sys.executable).parent / "ilvr"), "gateway", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        told = ""
        for line in process.stdout:  # until it ends, which it does once it has said what it lacks
            told += line
            if "Redis cannot be reached" in line:
                process.terminate()
    assert "Redis cannot be reached" in told
    assert MARK not in told
