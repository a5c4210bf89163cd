"""Processes that start before Redis does, say so, and go on by themselves; and that stop when they are told to."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.broker.redis_server import RedisServer, free_port
from tests.faults.conftest import VARIABLES, scripted_command, scripted_request
from tests.faults.fleet import ILVR
from tests.faults.process import Process

SOON_S = 20.0
PROBE_S = 1.0  # as long as Kubernetes waits for a probe


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=PROBE_S) as client:
        yield client


@pytest.fixture
def redis(tmp_path: Path) -> RedisServer:
    """Not started yet."""
    return RedisServer(tmp_path / "redis")


@contextlib.asynccontextmanager
async def running(process: Process) -> AsyncIterator[Process]:
    process.start()
    try:
        yield process
    finally:
        process.destroy()


def gateway(folder: Path, redis: RedisServer, port: int, **variables: str) -> Process:
    known = {**VARIABLES, "ILVR_BROKER_REDIS_URL": redis.url, **variables}
    return Process("gateway", [ILVR, "gateway", "--port", str(port)], known, folder, ready="is ready")


def runner(folder: Path, redis: RedisServer, port: int, *, seconds: float = 0.2, **variables: str) -> Process:
    known = {**VARIABLES, "ILVR_BROKER_REDIS_URL": redis.url, **variables}
    return Process("runner", scripted_command(folder, seconds=seconds)(0, port), known, folder, ready="is ready")


async def until_status(http: httpx.AsyncClient, url: str, status: int) -> httpx.Response:
    deadline = time.monotonic() + SOON_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = await http.get(url)
            if answer.status_code == status or time.monotonic() > deadline:
                assert answer.status_code == status, answer.text
                return answer
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_gateway_serves_before_redis_is_there(
    tmp_path: Path, redis: RedisServer, http: httpx.AsyncClient
) -> None:
    port, pages = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    async with running(gateway(tmp_path, redis, port)) as process:
        await process.until_ready(SOON_S)
        assert (await http.get(f"{url}/healthz")).status_code == 200
        for _ in range(3):  # each within the time of a probe
            answer = await http.get(f"{url}/readyz")
            assert answer.status_code == 503
            assert "broker" in answer.json()["error"]["message"].lower()
        asked = await http.post(f"{url}/v1/reason", json={"question": "?"}, timeout=SOON_S)
        assert (asked.status_code, asked.json()["error"]["code"]) == (503, "broker_unavailable")
        assert int(asked.headers["retry-after"]) > 0
        assert process.output().count("Redis cannot be reached") == 1
        with redis:
            async with running(runner(tmp_path, redis, pages)):
                await until_status(http, f"{url}/readyz", 200)
                request = scripted_request(1)
                body = {**request.body, "stream": False}
                answered = await http.post(f"{url}/v1/reason", json=body, timeout=SOON_S)
                assert answered.json()["answer"] == request.answer
            assert "Redis is there again" in process.output()
        process.send(signal.SIGTERM)
        assert await process.until_ended() == 0
        assert "Traceback" not in process.output()


async def test_a_gateway_has_no_torch(tmp_path: Path, redis: RedisServer) -> None:
    async with running(gateway(tmp_path, redis, free_port())) as process:
        await process.until_ready(SOON_S)
        mapped = process.mapped_files()
    assert "uvloop" in mapped
    assert "torch" not in mapped


async def test_a_runner_waits_for_redis(tmp_path: Path, redis: RedisServer, http: httpx.AsyncClient) -> None:
    pages = free_port()
    url = f"http://127.0.0.1:{pages}"
    async with running(runner(tmp_path, redis, pages)) as process:
        answer = await until_status(http, f"{url}/readyz", 503)
        assert "broker" in answer.json()["reason"]
        assert (await http.get(f"{url}/healthz")).status_code == 200
        assert "ilvr_runner_responses_in_flight 0.0" in (await http.get(f"{url}/metrics")).text
        await asyncio.sleep(1)
        assert "is ready" not in process.output()
        with redis:
            await process.until_ready(SOON_S)
            await until_status(http, f"{url}/readyz", 200)
            process.send(signal.SIGTERM)
            assert await process.until_ended() == 0
        assert "Traceback" not in process.output()


@pytest.mark.parametrize("who", ["gateway", "runner"])
async def test_redis_is_away_when_it_is_told_to_end(tmp_path: Path, redis: RedisServer, who: str) -> None:
    make = gateway if who == "gateway" else runner
    with redis:
        async with running(make(tmp_path, redis, free_port())) as process:
            await process.until_ready(SOON_S)
            redis.kill()
            process.send(signal.SIGTERM)
            assert await process.until_ended(SOON_S) == 0
            assert "Traceback" not in process.output()


async def test_a_second_signal_ends_the_grace(tmp_path: Path, redis: RedisServer, http: httpx.AsyncClient) -> None:
    """Of both, while an answer that takes a minute is on its way."""
    port, pages = free_port(), free_port()
    patient = {"ILVR_SERVICE_DRAIN_GRACE_S": "60", "ILVR_RUNNER_DRAIN_GRACE_S": "60"}
    with redis:
        async with (
            running(gateway(tmp_path, redis, port, **patient)) as front,
            running(runner(tmp_path, redis, pages, seconds=60, **patient)) as back,
        ):
            url = f"http://127.0.0.1:{port}"
            await until_status(http, f"{url}/readyz", 200)
            async with http.stream("POST", f"{url}/v1/reason", json=scripted_request(1).body, timeout=60) as answer:
                lines = answer.aiter_lines()
                while "response.in_progress" not in await anext(lines):
                    pass
                for process in (back, front):
                    process.send(signal.SIGTERM)
                await asyncio.sleep(2)
                assert (back.status, front.status) == (None, None)
                front.send(signal.SIGTERM)
                assert await front.until_ended(SOON_S) == 0
                told = [line async for line in lines if line.startswith("event: ")]
                assert "event: response.failed" not in told  # it goes on, and can be followed elsewhere
            back.send(signal.SIGTERM)
            assert await back.until_ended(SOON_S) == 0
            assert "Traceback" not in front.output() + back.output()
