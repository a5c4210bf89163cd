"""What the runner is given of a chat request, and what is refused by name."""

import base64
import hashlib
import io
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, UnprocessableEntityError

from contracts.jobs import Sampling, Turn
from service.openai.schemas import REFUSED
from tests.scripted_runner import MODEL, ScriptedRunner
from tests.service.helpers import check_error, picture
from tests.service.openai.chunks import QUESTION

PATH = "/v1/chat/completions"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def asking(*parts: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "Which way?"}]}]


async def test_every_field_reaches_the_runner(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    await openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "  Verbatim \n"}],
        max_completion_tokens=9,
        temperature=0.5,
        top_p=0.25,
        seed=-7,
        stop="\n\n",
        presence_penalty=0,
        frequency_penalty=0,
        metadata={"trace": "abc"},
        extra_body={"top_k": 4, "repetition_penalty": 1.05, "latent": {"mode": "off"}},
    )
    (job,) = runner.jobs
    assert (job.question, job.latent_mode, job.metadata) == ("  Verbatim \n", "off", {"trace": "abc"})
    assert job.sampling == Sampling(
        max_tokens=9, temperature=0.5, top_p=0.25, top_k=4, repetition_penalty=1.05, seed=-7, stop=("\n\n",)
    )


async def test_what_is_not_given_is_left_to_the_checkpoint(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    nulls = dict.fromkeys(["model", "stream", "stream_options", "n", "max_tokens", "temperature", "stop", "latent"])
    for body in ({}, nulls, dict.fromkeys(REFUSED)):
        assert (await client.post(PATH, json={"messages": QUESTION, **body})).status_code == 200
        job = runner.jobs.pop()
        assert (job.sampling, job.latent_mode, job.images, job.metadata) == (Sampling(), "on", (), {})


@pytest.mark.parametrize(
    ("given", "max_tokens"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),  # the other one is deprecated
    ],
)
async def test_both_names_of_the_most_tokens(
    given: dict[str, int], max_tokens: int, client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    assert (await client.post(PATH, json={"messages": QUESTION, **given})).status_code == 200
    assert runner.jobs[0].sampling.max_tokens == max_tokens


async def test_pictures_of_every_kind_come_in_order(
    openai: AsyncOpenAI, live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    stored = (await live.post("/v1/images", content=picture(6, 6))).json()["id"]
    inline = picture(3, 9, "JPEG")
    parts = [image(data_url(inline, "image/jpeg")), image(stored), image("DATA" + data_url(picture(5, 7))[4:])]
    await openai.chat.completions.create(model=MODEL, messages=asking(*parts))
    (job,) = runner.jobs
    assert job.question == "Which way?"
    assert [(kept.width, kept.height) for kept in job.images] == [(3, 9), (6, 6), (5, 7)]
    assert job.images[0].id == "img_" + hashlib.sha256(inline).hexdigest()


async def test_copies_share_their_picture(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    messages = asking(image(data_url(picture())))
    await openai.chat.completions.create(model=MODEL, messages=messages, n=2, temperature=1)
    first, second = runner.jobs
    assert first.images == second.images != ()
    assert first.sampling.seed is second.sampling.seed is None


URL_PARAM = "messages.0.content.0.image_url.url"


@pytest.mark.parametrize(
    ("url", "status", "code", "says"),
    [
        ("data:image/png;base64,!!!", 422, "invalid_request", "base64"),
        ("data:image/png,abc", 422, "invalid_request", "data URL"),
        (data_url(b"no picture, but long enough to be looked at"), 415, "not_an_image", ""),
        ("img_" + "0" * 64, 404, "image_not_found", ""),
        ("img_0", 422, "invalid_request", "img_"),
        ("ftp://example.com/a.png", 422, "invalid_request", "https"),
        ("https://example.com/a.png", 403, "url_not_allowed", "off here"),
        (data_url(picture(5000, 2)), 413, "image_too_large", ""),
    ],
)
async def test_a_bad_picture_is_named_by_its_place(
    url: str, status: int, code: str, says: str, client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    answer = await client.post(PATH, json={"messages": asking(image(url))})
    assert says in check_error(answer, status, code, URL_PARAM)
    assert runner.jobs == []


REFUSED_VALUES: dict[str, list[Any]] = {
    "logprobs": [True],
    "top_logprobs": [2],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}],
    "tools": [[{"type": "function", "function": {"name": "f"}}]],
    "tool_choice": ["required", {"type": "function", "function": {"name": "f"}}],
    "functions": [[{"name": "f"}]],
    "function_call": [{"name": "f"}],
    "logit_bias": [{"50256": -100}],
    "presence_penalty": [0.1, -1],
    "frequency_penalty": [0.1],
}


def test_every_refusal_is_tried() -> None:
    assert set(REFUSED_VALUES) == set(REFUSED)


@pytest.mark.parametrize(("param", "value"), [(name, value) for name, all in REFUSED_VALUES.items() for value in all])
async def test_what_is_not_done_here_is_refused_by_name(
    param: str, value: Any, openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    with pytest.raises(UnprocessableEntityError) as refused:
        await openai.chat.completions.create(model=MODEL, messages=QUESTION, extra_body={param: value})
    assert (refused.value.param, refused.value.code, refused.value.type) == (
        param,
        "invalid_request",
        "invalid_request_error",
    )
    assert str(param) in refused.value.message
    assert runner.jobs == []


@pytest.mark.parametrize(
    "harmless",
    [
        {"logprobs": False, "top_logprobs": 0, "response_format": {"type": "text"}, "tools": [], "tool_choice": "auto"},
        {"functions": [], "function_call": "none", "logit_bias": {}, "presence_penalty": 0.0, "frequency_penalty": 0},
        # Fields that nobody here knows.
        {"user": "u", "store": True, "service_tier": "auto", "ignore_eos": True, "colour": {"of": ["the", "sky"]}},
    ],
)
async def test_what_asks_for_nothing_is_passed_over(
    harmless: dict[str, Any], openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    completion = await openai.chat.completions.create(model=MODEL, messages=QUESTION, extra_body=harmless)
    assert completion.choices[0].message.content == "RRDD"
    assert runner.jobs[0].sampling == Sampling()


async def test_elsewhere_unknown_fields_are_refused_still(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    check_error(await client.post("/v1/reason", json={"question": "?", "user": "u"}), 422, "invalid_request", "user")
    answer = await client.post(PATH, json={"messages": QUESTION, "latent": {"mod": "off"}})
    check_error(answer, 422, "invalid_request", "latent.mod")


USER = {"role": "user", "content": "?"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 422, "messages"),
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "tool", "content": "?", "tool_call_id": "a"}]}, 422, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "The path"}]}, 422, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ""}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "user", "content": []}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 7}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, 422, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 422, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 422, "messages.0.content.0.text"),
        ({"messages": asking({"type": "image_url"})}, 422, "messages.0.content.0.image_url"),
        ({"messages": [{"role": "user", "content": "x" * 1001}]}, 422, "messages"),
        ({"messages": QUESTION, "n": 0}, 422, "n"),
        ({"messages": QUESTION, "n": 2}, 422, "n"),
        ({"messages": QUESTION, "n": 2, "temperature": 0}, 422, "n"),
        ({"messages": QUESTION, "n": 2, "temperature": 1, "top_k": 1}, 422, "n"),
        ({"messages": QUESTION, "n": 2, "temperature": 1, "seed": 2**63 - 1}, 422, "seed"),
        ({"messages": QUESTION, "n": 17, "temperature": 1}, 422, "n"),
        ({"messages": QUESTION, "temperature": 3}, 422, "temperature"),
        ({"messages": QUESTION, "max_tokens": 0}, 422, "max_tokens"),
        ({"messages": QUESTION, "stream": "yes"}, 422, "stream"),
        ({"messages": QUESTION, "stop": ["x"] * 17}, 422, "stop"),
        ([], 400, None),
    ],
)
async def test_a_bad_field_is_named(
    body: Any, status: int, param: str | None, client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    answer = await client.post(PATH, json=body)
    check_error(answer, status, "malformed_body" if status == 400 else "invalid_request", param)
    assert runner.jobs == []


async def test_messages_before_the_question_are_its_history(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    first = asking(image(data_url(picture(3, 9))), image(data_url(picture(5, 7))))
    messages: list[Any] = [
        {"role": "developer", "content": "Be "},
        *first,
        {"role": "assistant", "content": "RRDD"},
        {"role": "user", "content": [{"type": "text", "text": "And "}, image(data_url(picture(6, 6)))]},
    ]
    await openai.chat.completions.create(model=MODEL, messages=messages, n=2, temperature=1)
    for job in runner.jobs:
        assert job.history == (
            Turn(role="system", text="Be "),
            Turn(role="user", text="Which way?", num_images=2),
            Turn(role="assistant", text="RRDD"),
        )
        assert job.question == "And "
        assert [(kept.width, kept.height) for kept in job.images] == [(3, 9), (5, 7), (6, 6)]
    assert len(runner.jobs) == 2


async def test_of_responses_as_well(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    said: list[Any] = [
        {"role": "user", "content": "One?"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Up.", "annotations": []}],
        },
        {"role": "user", "content": "Two?"},
    ]
    await openai.responses.create(model=MODEL, input=said, instructions="Be brief.")
    (job,) = runner.jobs
    assert [(turn.role, turn.text) for turn in job.history] == [
        ("system", "Be brief."),
        ("user", "One?"),
        ("assistant", "Up."),
    ]
    assert job.question == "Two?"


async def test_only_json_is_read(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    file = {"image": io.BytesIO(picture())}
    check_error(await client.post(PATH, files=file), 400, "malformed_body")
    check_error(await client.post(PATH, content=b"{"), 400, "malformed_body")
    check_error(await client.post(PATH, content=b"[" * 200_000), 400, "malformed_body")
