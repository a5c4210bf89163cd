"""``POST /v1/responses`` with OpenAI's client: the object, its events, and what is refused."""

import base64
from collections.abc import Sequence
from typing import Any

import httpx
import openai as sdk
import pytest
from openai import AsyncOpenAI

from contracts import errors as e
from contracts.jobs import Sampling
from contracts.responses import Step, TextStep
from service.openai.responses_schemas import REFUSED
from tests.scripted_runner import MODEL, STEPS, ScriptedRunner
from tests.service.conftest import until
from tests.service.helpers import check_error, picture

ASK: dict[str, Any] = {"model": MODEL, "input": "Find a safe path."}
REASONING = "Holes: second row.\nLet me [latent: 8] So the path is \\boxed{RRDD} ✓"
ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.reasoning_text.delta"] * 5,
    "response.reasoning_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def test_the_object(openai: AsyncOpenAI, live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    response = await openai.responses.create(**ASK, metadata={"k": "v"})
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert (response.output_text, response.metadata) == ("RRDD", {"k": "v"})
    reasoning, message = response.output
    assert reasoning.type == "reasoning"
    assert [part.text for part in reasoning.content or []] == [REASONING]
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (41, 31, 72)
    assert response.usage.output_tokens_details.reasoning_tokens == 25
    assert (await live.get(f"/v1/reason/{response.id}")).json()["answer"] == "RRDD"


async def test_a_stream_is_numbered_in_order_and_ends_with_the_object(
    openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    events: list[Any] = [event async for event in await openai.responses.create(**ASK, stream=True)]
    assert [event.type for event in events] == ORDER
    assert [event.sequence_number for event in events] == list(range(len(ORDER)))
    assert "".join(event.delta for event in events if event.type == "response.reasoning_text.delta") == REASONING
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "RRDD"
    for event in events[2:]:
        if event.type not in ("response.completed", "response.output_item.added", "response.output_item.done"):
            assert event.item_id == events[-1].response.output[event.output_index].id
    ended = [event.item for event in events if event.type == "response.output_item.done"]
    assert ended == events[-1].response.output
    whole = await openai.responses.create(**ASK)
    same = {"status", "output_text", "usage", "metadata"}
    assert events[-1].response.to_dict().keys() == whole.to_dict().keys()
    assert {name: getattr(events[-1].response, name) for name in same} == {name: getattr(whole, name) for name in same}


@pytest.mark.parametrize(
    ("steps", "answer", "extra", "reasoning", "text"),
    [
        (STEPS, "RRDD", {}, REASONING, "RRDD"),
        (STEPS, "RRDD", {"latent": {"marker": False}}, REASONING.replace("[latent: 8]", ""), "RRDD"),
        ((TextStep(index=0, text="Hi there."),), None, {}, "Hi there.", "Hi there."),
        ((), None, {}, "", ""),
    ],
)
async def test_the_clients_own_reading_of_a_stream(
    steps: Sequence[Step],
    answer: str | None,
    extra: dict[str, Any],
    reasoning: str,
    text: str,
    openai: AsyncOpenAI,
    runner: ScriptedRunner,
) -> None:
    runner.steps, runner.answer = steps, answer
    async with openai.responses.stream(**ASK, extra_body=extra) as stream:
        read = await stream.get_final_response()
    asked = await openai.responses.create(**ASK, extra_body=extra)
    for response in (read, asked):
        assert response.output_text == text
        told = [part.text for item in response.output if item.type == "reasoning" for part in item.content or []]
        assert "".join(told) == reasoning


async def test_a_text_that_was_cut_says_so(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    runner.ending = "incomplete"
    response = await openai.responses.create(**ASK)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    events = [event async for event in await openai.responses.create(**ASK, stream=True)]
    assert events[-1].type == "response.incomplete"


async def test_every_field_reaches_the_runner(
    openai: AsyncOpenAI, live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    stored = (await live.post("/v1/images", content=picture(6, 6))).json()["id"]
    url = f"data:image/png;base64,{base64.b64encode(picture(3, 9)).decode()}"
    content: list[Any] = [
        {"type": "input_text", "text": "Which "},
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_image", "file_id": stored, "detail": "auto"},
        {"type": "input_text", "text": "way?"},
    ]
    await openai.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": content}],
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.25,
        store=False,
        extra_body={"seed": 3, "stop": "\n", "top_k": 4, "latent": {"mode": "off"}, "colour": "blue"},
    )
    (job,) = runner.jobs
    assert (job.question, job.latent_mode) == ("Which way?", "off")
    assert [(image.width, image.height) for image in job.images] == [(3, 9), (6, 6)]
    assert job.sampling == Sampling(max_tokens=9, temperature=0.5, top_p=0.25, top_k=4, seed=3, stop=("\n",))


REFUSED_VALUES: dict[str, Any] = {
    "previous_response_id": "resp_1",
    "conversation": "conv_1",
    "prompt": {"id": "pmpt_1"},
    "background": True,
    "tools": [{"type": "web_search"}],
    "tool_choice": "required",
    "top_logprobs": 1,
}


@pytest.mark.parametrize("param", REFUSED)
async def test_what_is_not_done_here_is_refused_by_name(
    param: str, openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    with pytest.raises(sdk.UnprocessableEntityError) as refused:
        await openai.responses.create(**ASK, extra_body={param: REFUSED_VALUES[param]})
    assert refused.value.param == param
    assert runner.jobs == []


async def test_a_format_is_refused_by_name(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    with pytest.raises(sdk.UnprocessableEntityError) as refused:
        await openai.responses.create(**ASK, text={"format": {"type": "json_object"}})
    assert refused.value.param == "text.format"
    assert runner.jobs == []


@pytest.mark.parametrize(
    "harmless",
    [
        {"tools": [], "tool_choice": "auto", "background": False, "top_logprobs": 0},
        {"text": {"verbosity": "low"}},
        {"text": {"format": {"type": "text"}, "verbosity": "high"}},
        {"text": {"format": None}},
        {"text": {}, "reasoning": {"effort": "low"}, "include": [], "truncation": "auto"},
    ],
)
async def test_what_asks_for_nothing_is_passed_over(
    harmless: dict[str, Any], openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    response = await openai.responses.create(**ASK, extra_body=harmless)
    assert response.output_text == "RRDD"
    assert runner.jobs[0].sampling == Sampling()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ([], "input"),
        ("", "input.content"),
        ([7], "input.0.type"),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}], "input"),
        ([{"type": "function_call_output", "call_id": "a", "output": ""}], "input.0.type"),
        ([{"role": "user", "content": [{"type": "input_file"}]}], "input.0.content.0.type"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], "input.0.content.0.image_url"),
        ([{"role": "user", "content": "x" * 1001}], "input"),
        ([{"role": "user", "content": "x"}] * 257, "input"),
        ([{"content": "x"}], "input.0.role"),
    ],
)
async def test_a_bad_input_is_named(given: Any, param: str, client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    check_error(await client.post("/v1/responses", json={"input": given}), 422, "invalid_request", param)
    assert runner.jobs == []


async def test_failures(openai: AsyncOpenAI, live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.fail_with = e.EngineDead("It died.")
    with pytest.raises(sdk.InternalServerError):
        await openai.responses.create(**ASK)
    events: list[Any] = [event async for event in await openai.responses.create(**ASK, stream=True)]
    assert (events[-1].type, events[-1].response.status) == ("response.failed", "failed")
    assert (events[-1].response.error.code, events[-1].response.error.message) == ("engine_dead", "It died.")
    runner.fail_with = None
    runner.pause()
    stream = await openai.responses.create(**ASK, stream=True)
    await until(lambda: runner.num_working == 1)
    await live.post(f"/v1/reason/{runner.jobs[-1].response_id}/cancel")
    *_, last = [event async for event in stream]
    assert (last.type, last.response.error.code) == ("response.failed", "response_cancelled")
