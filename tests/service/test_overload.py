"""More than there is room for: refused before a picture is decoded, hashed or stored, and told when to come back."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker.embedded import EmbeddedBroker
from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import until
from tests.service.helpers import base64_image, check_error, picture


@pytest.fixture
async def full(live: httpx.AsyncClient, broker: EmbeddedBroker, runner: ScriptedRunner) -> httpx.AsyncClient:
    """Two run, two wait, which is all there is room for."""
    runner.pause()
    for number in range(4):
        answer = await live.post("/v1/reason", json={"question": str(number), "background": True})
        assert answer.status_code == 200
        await until(lambda: runner.num_working == min(len(broker._open), 2))
    return live


async def test_nothing_is_done_for_who_is_refused(
    full: httpx.AsyncClient, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was looked at")

    for name in ("service.body.parse_json", "service.body.parse_fields", "service.images._decode"):
        monkeypatch.setattr(name, never)
    for name in ("service.images._identify", "service.request_images.check_image"):
        monkeypatch.setattr(name, never)
    data = picture(200, 200)
    as_json = await full.post("/v1/reason", json={"question": "?", "images": [base64_image(data)]})
    as_form = await full.post("/v1/reason", data={"question": "?"}, files={"image": data})
    for answer in (as_json, as_form):
        check_error(answer, 429, "overloaded")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert broker._images.num_bytes == 0


async def test_a_body_that_is_refused_is_not_waited_for(full: httpx.AsyncClient) -> None:
    """Only its head is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", full.base_url.port)
    writer.write(
        b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 429")
    assert b"\r\nretry-after: " in head.lower()
    writer.close()


async def test_how_long_to_wait_comes_from_how_fast_answers_come(
    full: httpx.AsyncClient, broker: EmbeddedBroker, runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait; one ended in the last second, or one in ten."""
    answer = await full.post("/v1/reason", json={"question": "?"})
    assert answer.headers["retry-after"] == "5"  # nothing is known yet
    ended_at = broker._admission._rate._ended_at
    ended_at.append(asyncio.get_running_loop().time())
    answer = await full.post("/v1/reason", json={"question": "?"})
    assert answer.headers["retry-after"] == "2"
    ended_at[0] -= 10
    answer = await full.post("/v1/reason", json={"question": "?"})
    assert answer.headers["retry-after"] == "21"  # in a little more than ten seconds


class TestBytes:
    @pytest.fixture
    def settings(self) -> ServiceSettings:
        return ServiceSettings(
            max_body_bytes=200_000, image_max_bytes=150_000, max_intake_bytes=0, disconnect_grace_s=0.3
        )

    async def test_uploads_are_bounded_together(self, live: httpx.AsyncClient, app: FastAPI, runner: Any) -> None:
        """The bound is that of one body here. What is declared counts, and so does what may come without a word."""
        for framing in (b"Content-Length: 150000", b"Transfer-Encoding: chunked"):
            _, writer = await asyncio.open_connection("127.0.0.1", live.base_url.port)
            writer.write(b"POST /v1/reason HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
            await until(lambda: app.state.gateway.intake._num_bytes > 0)
            check_error(await live.post("/v1/reason", content=b" " * 60_000), 429, "overloaded")
            check_error(await live.post("/v1/images", content=b" " * 60_000), 429, "overloaded")
            writer.close()
            await until(lambda: app.state.gateway.intake._num_bytes == 0)
        assert (await live.post("/v1/reason", json={"question": "?"})).status_code == 200
        assert app.state.gateway.intake._num_bytes == 0

    async def test_a_body_larger_than_all_is_too_large_and_not_too_much(
        self, live: httpx.AsyncClient, runner: ScriptedRunner
    ) -> None:
        check_error(await live.post("/v1/reason", content=b" " * 200_001), 413, "body_too_large")
