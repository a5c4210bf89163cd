"""What is refused, with which code and which field named."""

from typing import Any

import httpx
import pytest

from tests.scripted_runner import ScriptedRunner
from tests.service.helpers import base64_image, check_error, picture

pytestmark = pytest.mark.usefixtures("runner")


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/reason", json={"question": "?", **fields})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"latent": {"include": ["vectors"]}}, "latent.include"),
    ],
)
async def test_fields_of_later_work(fields: dict[str, Any], param: str, client: httpx.AsyncClient) -> None:
    check_error(await ask(client, **fields), 422, "not_supported_yet", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"question": ""}, "question"),
        ({"question": None}, "question"),
        ({"question": 7}, "question"),
        ({"question": "x" * 1001}, "question"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"stop": ""}, "stop.0"),
        ({"stop": ["a", ""]}, "stop.1"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"latent": {"mode": "maybe"}}, "latent.mode"),
        ({"latent": {"size": 3}}, "latent.size"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"stream": "yes"}, "stream"),
        ({"images": "x"}, "images"),
        ({"images": [{"type": "file"}]}, "images.0"),
        ({"images": [{"type": "base64"}]}, "images.0.data"),
        ({"images": [{"type": "base64", "data": "x", "name": "y"}]}, "images.0.name"),
        ({"images": [base64_image(picture())] * 4}, "images"),
    ],
    ids=str,
)
async def test_a_bad_field_is_named(fields: dict[str, Any], param: str, client: httpx.AsyncClient) -> None:
    message = check_error(await ask(client, **fields), 422, "invalid_request", param)
    assert message.startswith(f"{param}: ")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_numbers_are_finite(text: str, client: httpx.AsyncClient) -> None:
    body = f'{{"question": "?", "repetition_penalty": {text}}}'
    answer = await client.post("/v1/reason", content=body, headers={"Content-Type": "application/json"})
    check_error(answer, 422, "invalid_request", "repetition_penalty")


async def test_a_misspelt_field_gets_a_hint(client: httpx.AsyncClient) -> None:
    message = check_error(await ask(client, max_token=5), 422, "invalid_request", "max_token")
    assert "did you mean 'max_tokens'?" in message


async def test_other_faults_are_counted(client: httpx.AsyncClient) -> None:
    assert "(1 more field at fault.)" in check_error(
        await ask(client, top_p=7, seed="x"), 422, "invalid_request", "top_p"
    )


async def test_the_question_is_required(client: httpx.AsyncClient) -> None:
    assert "required" in check_error(await client.post("/v1/reason", json={}), 422, "invalid_request", "question")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"null", b'{"question": "\xff"}', b'{"question": "\\ud800"}', b"[" * 5000],
    ids=lambda body: repr(body[:20]),
)
async def test_what_is_no_json_object(body: bytes, client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/reason", content=body, headers={"Content-Type": "application/json"})
    check_error(answer, 400, "malformed_body")


async def test_a_body_without_a_type_is_json_and_other_types_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/reason", content=b'{"question": "?"}')).status_code == 200
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.post("/v1/reason", content=b'{"question": "?"}', headers=headers)
    assert "application/json" in check_error(answer, 400, "malformed_body")


@pytest.mark.parametrize(
    ("data", "files", "param"),
    [
        ({}, [("image", picture())], "question"),
        ({"question": "?", "max_tokens": "many"}, [("image", picture())], "max_tokens"),
        ({"question": "?", "max_token": "5"}, [("image", picture())], "max_token"),
        ({"question": "?", "image": "maze.png"}, [("image", picture())], "image.0"),
        ({"question": "?", "seed": ["1", "2"]}, [("image", picture())], "seed"),
        ({"question": "?", "latent.mode": ["on", "off"]}, [("image", picture())], "latent.mode"),
        ({"question": "?", "latent": "on"}, [("image", picture())], "latent"),
        ({"question": "?"}, [("picture", picture())], "picture"),
        ({"question": "?"}, [("image", picture())] * 4, "image"),
        ({"question": "?", "background": "later"}, [("image", picture())], "background"),
        ({"question": "?", "timeout_s": "0"}, [("image", picture())], "timeout_s"),
    ],
)
async def test_a_bad_form_field_is_named(
    data: dict[str, Any], files: list[tuple[str, bytes]], param: str, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/v1/reason", data=data, files=files)
    check_error(answer, 422, "invalid_request", param)


async def test_a_broken_form_is_malformed(client: httpx.AsyncClient) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = await client.post("/v1/reason", content=b"no parts", headers={"Content-Type": content_type})
        check_error(answer, 400, "malformed_body")


async def test_a_model_that_is_not_served(client: httpx.AsyncClient) -> None:
    assert "scripted is" in check_error(await ask(client, model="gpt"), 404, "model_not_found", "model")


async def test_nothing_that_is_refused_reaches_the_runner(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    for fields in ({"max_tokens": 0}, {"timeout_s": 1e9}, {"images": [base64_image(b"no")]}):
        assert (await ask(client, **fields)).is_client_error
    assert runner.jobs == []
