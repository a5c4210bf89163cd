"""No body is read past the limit, whether or not its length is declared."""

import errno
import tempfile
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.scripted_runner import ScriptedRunner
from tests.service.helpers import check_error

LIMIT = 400_000  # as conftest sets it


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/v1/reason", "/v1/images"])
async def test_a_declared_length_is_refused_before_the_body_is_read(
    path: str, content_type: str, client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 10_000
            yield b"x" * 10_000

    headers = {"Content-Type": content_type, "Content-Length": "1000000"}
    check_error(await client.post(path, content=body(), headers=headers), 413, "body_too_large")
    assert sent <= 10_000


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
async def test_a_chunked_body_is_refused_while_it_comes(
    content_type: str, client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(1000):
            sent += 10_000
            yield b"x" * 10_000

    answer = await client.post("/v1/reason", content=body(), headers={"Content-Type": content_type})
    check_error(answer, 413, "body_too_large")
    assert sent <= LIMIT + 20_000


async def test_over_a_socket_the_client_still_gets_the_answer(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    answer = await live.post("/v1/images", content=b"x" * (LIMIT + 1), headers={"Content-Type": "image/png"})
    check_error(answer, 413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 10_000

    check_error(await live.post("/v1/images", content=chunks()), 413, "body_too_large")
    assert (await live.get("/healthz")).status_code == 200


@pytest.mark.parametrize("value", ["[],", "0,", "{},"])
async def test_a_body_of_ever_so_many_small_values_is_refused_unparsed(
    value: str, client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    many = value * (390_000 // len(value))
    few = value * 1000
    for values, status, code in ((few, 422, "invalid_request"), (many, 400, "malformed_body")):
        body = f'{{"question": "?", "images": [{values}0]}}'.encode()
        refused = await client.post("/v1/reason", content=body, headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)


async def test_a_question_of_commas_is_a_question(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    assert (await client.post("/v1/reason", json={"question": ",[{" * 333})).status_code == 200


async def test_a_form_for_whose_files_there_is_no_space(
    client: httpx.AsyncClient,
    runner: ScriptedRunner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Files of a form lie in the folder for temporary ones, which in a container is small."""
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", no_space)
    files = {"image": ("a.png", b"x" * 1000, "image/png")}
    answer = await client.post("/v1/reason", files=files, data={"question": "?"})
    check_error(answer, 429, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert "no space is left" in caplog.text


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")
