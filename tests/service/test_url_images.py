"""A question about a picture that is somewhere else."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from service.image_fetch import ImageFetcher
from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.helpers import base64_image, check_error, picture
from tests.service.remote import Remote, ok, serving

URL = "http://images.example.com/a.png"


def ask(*urls: str) -> dict[str, object]:
    return {"question": "?", "images": [{"type": "url", "url": url} for url in urls]}


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    return settings.model_copy(update={"image_url_hosts": ("images.example.com",), "image_url_http": True})


@pytest.fixture
async def remote(app: FastAPI, settings: ServiceSettings) -> AsyncIterator[Remote]:
    async with serving() as remote:
        app.state.gateway.image_fetcher = ImageFetcher(settings, resolve=remote.resolve, connect=remote.connect)
        yield remote


async def test_it_is_fetched_and_kept_as_if_it_had_been_sent(
    client: httpx.AsyncClient, runner: ScriptedRunner, remote: Remote
) -> None:
    file = picture(7, 5)
    remote.answers["/a.png"] = ok(file)
    assert (await client.post("/v1/reason", json=ask(URL))).status_code == 200
    sent = await client.post("/v1/reason", json={"question": "?", "images": [base64_image(file)]})
    assert sent.status_code == 200
    first, second = runner.jobs
    assert first.images == second.images
    assert (first.images[0].width, first.images[0].height) == (7, 5)


async def test_what_is_not_allowed(client: httpx.AsyncClient, runner: ScriptedRunner, remote: Remote) -> None:
    remote.answers["/a.png"] = ok(picture())
    answer = await client.post("/v1/reason", json=ask(URL, "http://127.0.0.1/"))
    check_error(answer, 403, "url_not_allowed", "images.1.url")
    remote.names["images.example.com"] = [["169.254.169.254"]]
    message = check_error(await client.post("/v1/reason", json=ask(URL)), 403, "url_not_allowed", "images.0.url")
    assert "169.254" not in message
    assert runner.jobs == []


async def test_what_does_not_come(client: httpx.AsyncClient, runner: ScriptedRunner, remote: Remote) -> None:
    remote.answers["/a.png"] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    check_error(await client.post("/v1/reason", json=ask(URL)), 422, "url_not_fetched", "images.0.url")
    remote.answers["/a.png"] = ok(b"<html>")
    check_error(await client.post("/v1/reason", json=ask(URL)), 415, "not_an_image", "images.0.url")
    remote.answers["/a.png"] = ok(b"x" * 200_001)
    check_error(await client.post("/v1/reason", json=ask(URL)), 413, "image_too_large", "images.0.url")
    remote.answers["/a.png"] = ok(picture(2, 4001))
    check_error(await client.post("/v1/reason", json=ask(URL)), 413, "image_too_large", "images.0.url")
    assert runner.jobs == []


class TestOff:
    @pytest.fixture
    def settings(self, settings: ServiceSettings) -> ServiceSettings:
        return settings.model_copy(update={"image_url_hosts": ()})

    async def test_by_default_there_are_none(self, client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
        """With the gateway's own resolver and connections, which are not asked."""
        message = check_error(await client.post("/v1/reason", json=ask(URL)), 403, "url_not_allowed", "images.0.url")
        assert "off here" in message
