"""What is reasoning and what is content, streamed and not, as the clients put it together."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import openai as sdk
import pytest
from openai import AsyncOpenAI, OpenAI

from contracts import errors as e
from contracts.responses import LatentStep, Step, TextStep
from tests.scripted_runner import MODEL, STEPS, ScriptedRunner
from tests.service.openai.chunks import QUESTION, ends_of, text_of

BEGIN, END = "Holes: second row.\nLet me ", " So the path is \\boxed{RRDD} ✓"
PLAIN: tuple[Step, ...] = (TextStep(index=0, text="Hi there."),)
TWICE: tuple[Step, ...] = (
    LatentStep(index=0, size=3, exit="early", duration_ms=1.0),
    TextStep(index=1, text="I see. "),
    LatentStep(index=2, size=8, exit="full", duration_ms=1.0),
)
# Steps, the answer found in them, what the request says of it, and what comes of it.
TOLD = [
    (STEPS, "RRDD", {}, f"{BEGIN}[latent: 8]{END}", "RRDD"),
    (STEPS, "RRDD", {"latent": {"marker": True}}, f"{BEGIN}[latent: 8]{END}", "RRDD"),
    (STEPS, "RRDD", {"latent": {"marker": False}}, BEGIN + END, "RRDD"),
    (STEPS, "RRDD", {"separate_reasoning": False}, "", BEGIN + END),
    (STEPS, "RRDD", {"separate_reasoning": False, "latent": {"marker": True}}, "", f"{BEGIN}[latent: 8]{END}"),
    # Where the text names no answer, what stands at its end.
    (STEPS, None, {}, f"{BEGIN}[latent: 8]{END}", END),
    (PLAIN, None, {}, "Hi there.", "Hi there."),
    (TWICE, None, {}, "[latent: 3]I see. [latent: 8]", ""),
    ((), None, {}, "", ""),
]


@pytest.mark.parametrize(("steps", "answer", "extra", "reasoning", "content"), TOLD)
async def test_a_stream_and_an_answer_say_the_same(
    steps: Sequence[Step],
    answer: str | None,
    extra: dict[str, Any],
    reasoning: str,
    content: str,
    openai: AsyncOpenAI,
    runner: ScriptedRunner,
) -> None:
    runner.steps, runner.answer = steps, answer
    ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "extra_body": extra}
    (choice,) = (await openai.chat.completions.create(**ask)).choices
    assert choice.message.role == "assistant"
    assert choice.message.content == content
    assert (getattr(choice.message, "reasoning_content", None) or "") == reasoning
    chunks = [chunk async for chunk in await openai.chat.completions.create(**ask, stream=True)]
    assert (text_of(chunks, "content"), text_of(chunks, "reasoning_content")) == (content, reasoning)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason == "stop"
    assert ends_of(chunks) == {0: "stop"}


async def test_the_synchronous_client_as_well(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    def ask() -> None:
        with OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0, timeout=20) as client:
            whole = client.chat.completions.create(model=MODEL, messages=QUESTION)
            streamed = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
            assert (whole.choices[0].message.content, text_of(list(streamed), "content")) == ("RRDD", "RRDD")
            assert client.responses.create(model=MODEL, input="?").output_text == "RRDD"
            *_, last = client.responses.create(model=MODEL, input="?", stream=True)
            assert last.type == "response.completed"
            assert last.response.output_text == "RRDD"
            with pytest.raises(sdk.UnprocessableEntityError, match="expected"):
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": []}])
            runner.fail_with = e.EngineDead("It died.")
            with pytest.raises(sdk.InternalServerError):
                client.responses.create(model=MODEL, input="?")
            with pytest.raises(sdk.APIError, match="It died"):
                list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))

    await asyncio.to_thread(ask)


async def test_the_completion_is_the_response_in_other_words(
    openai: AsyncOpenAI, live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    completion = await openai.chat.completions.create(model=MODEL, messages=QUESTION)
    response = (await live.get(f"/v1/reason/{completion.id}")).json()
    assert (completion.object, completion.model) == ("chat.completion", MODEL)
    assert completion.created == response["created_at"]
    assert completion.choices[0].message.content == response["answer"]
    assert completion.usage is not None
    assert completion.usage.to_dict() == {
        "prompt_tokens": 41,
        "completion_tokens": 31,  # 23 of text and 8 latent steps
        "total_tokens": 72,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 25},  # all but the 6 of the answer
    }


async def test_reasoning_that_is_not_separate_is_not_counted_as_such(
    openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    ask = {"separate_reasoning": False}
    completion = await openai.chat.completions.create(model=MODEL, messages=QUESTION, extra_body=ask)
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 8  # the latent steps


async def test_a_text_that_was_cut_says_so(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    runner.ending = "incomplete"
    completion = await openai.chat.completions.create(model=MODEL, messages=QUESTION)
    assert completion.choices[0].finish_reason == "length"
    chunks = [c async for c in await openai.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)]
    assert ends_of(chunks) == {0: "length"}
    assert text_of(chunks, "content") == completion.choices[0].message.content == END


async def test_choices_come_by_index_each_with_the_next_seed(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "n": 3, "temperature": 0.7, "seed": 5}
    completion = await openai.chat.completions.create(**ask)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert sorted(job.sampling.seed or 0 for job in runner.jobs) == [5, 6, 7]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (41, 3 * 31)
    streamed = await openai.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in streamed]
    assert ends_of(chunks) == {0: "stop", 1: "stop", 2: "stop"}
    for index in range(3):
        assert text_of(chunks, "content", index) == "RRDD"
        assert text_of(chunks, "reasoning_content", index) == f"{BEGIN}[latent: 8]{END}"
    assert chunks[-1].usage == completion.usage


async def test_models_are_listed_and_shown(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    (listed,) = [model async for model in openai.models.list()]
    assert await openai.models.retrieve(MODEL) == listed
    assert (listed.id, listed.object, listed.owned_by) == (MODEL, "model", "ilvr")
