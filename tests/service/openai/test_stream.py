"""Chunks as they happen: their form, their end, and what becomes of a stream that is left or begins again."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import openai as sdk
import pytest
from openai import AsyncOpenAI

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from contracts.responses import LatentStep, Step, TextStep
from service.settings import ServiceSettings
from service.sse import PING
from tests.scripted_runner import MODEL, STEPS, ScriptedRunner
from tests.service.conftest import until
from tests.service.helpers import live_frames, live_parts
from tests.service.openai.chunks import QUESTION, ends_of, text_of

STREAM: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "stream": True}
REASONING = "Holes: second row.\nLet me [latent: 8] So the path is \\boxed{RRDD} ✓"


async def test_the_form_of_a_stream(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    answer = await client.post("/v1/chat/completions", json={**STREAM, "stream_options": {"include_usage": True}})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *parts, last = answer.text.removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    chunks = [json.loads(part.removeprefix("data: ")) for part in parts]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {(runner.jobs[0].response_id, MODEL)}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Holes: second"},
        {"reasoning_content": " row.\nLet me "},
        {"reasoning_content": "[latent: 8]"},
        {"reasoning_content": " So the path is"},
        {"reasoning_content": " \\boxed{RRDD} ✓"},
        {"content": "RRDD"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 7 + ["stop"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 8
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 25}


async def test_usage_is_told_where_it_is_asked_for(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    whole = await openai.chat.completions.create(model=MODEL, messages=QUESTION)
    asked = await openai.chat.completions.create(**STREAM, stream_options={"include_usage": True})
    assert [chunk.usage async for chunk in asked][-1] == whole.usage
    for options in ({}, {"stream_options": {"include_usage": False}}):
        chunks = [chunk async for chunk in await openai.chat.completions.create(**STREAM, **options)]
        assert {chunk.usage for chunk in chunks} == {None}


async def test_the_first_chunk_comes_with_the_first_step(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    """So that who measures the time to the first token measures it. Until then there are comments only."""
    runner.pause()
    async with live.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
        parts = live_parts(answer)
        for _ in range(2):
            assert await anext(parts) == PING.decode().strip()
        runner.resume()
        assert '"role":"assistant"' in await anext(parts)
        assert [part async for part in parts][-1] == "data: [DONE]"


async def test_chunks_arrive_when_they_happen(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    runner.delay_s = 0.02
    stream = await openai.chat.completions.create(**STREAM)
    async for chunk in stream:
        if getattr(chunk.choices[0].delta, "reasoning_content", None):
            break
    assert runner.num_working == 1
    await stream.close()


class TestLeft:
    @pytest.fixture
    def settings(self, settings: ServiceSettings) -> ServiceSettings:
        return settings.model_copy(update={"disconnect_grace_s": 60.0})  # which is not waited for

    @pytest.mark.parametrize("copies", [{}, {"n": 2, "temperature": 1}])
    async def test_a_stream_that_is_left_is_cancelled_at_once(
        self, copies: dict[str, Any], live: httpx.AsyncClient, openai: AsyncOpenAI, runner: ScriptedRunner
    ) -> None:
        runner.delay_s = 0.05
        stream = await openai.chat.completions.create(**STREAM, **copies)
        await anext(aiter(stream))
        runner.pause()
        assert runner.num_working == copies.get("n", 1)
        await stream.close()
        await until(lambda: runner.num_working == 0)
        for job in runner.jobs:
            assert (await live.get(f"/v1/reason/{job.response_id}")).json()["status"] == "cancelled"

    async def test_unless_another_reads_it(
        self, live: httpx.AsyncClient, openai: AsyncOpenAI, runner: ScriptedRunner
    ) -> None:
        runner.pause()
        stream = await openai.chat.completions.create(**STREAM)
        await until(lambda: runner.num_working == 1)
        async with live.stream("GET", f"/v1/reason/{runner.jobs[0].response_id}/events") as answer:
            events = live_frames(answer)
            await anext(events)
            await stream.close()
            await asyncio.sleep(0.2)
            runner.resume()
            assert [event.event async for event in events][-1] == "response.completed"


async def test_a_request_that_is_left_is_cancelled(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    runner.pause()
    waiting = asyncio.create_task(openai.chat.completions.create(model=MODEL, messages=QUESTION, n=2, temperature=1))
    await until(lambda: runner.num_working == 2)
    waiting.cancel()
    await until(lambda: runner.num_working == 0)


async def test_a_response_that_another_cancels_is_an_error(
    live: httpx.AsyncClient, openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    runner.pause()
    stream = await openai.chat.completions.create(**STREAM)
    await until(lambda: runner.num_working == 1)
    await live.post(f"/v1/reason/{runner.jobs[0].response_id}/cancel")
    with pytest.raises(sdk.APIError) as raised:
        _ = [chunk async for chunk in stream]
    assert raised.value.code == "response_cancelled"


class TestRestarts:
    """The runner falls silent in the middle of the last text, and another one takes over."""

    @pytest.fixture
    async def broker(self) -> AsyncIterator[EmbeddedBroker]:
        broker = EmbeddedBroker(BrokerLimits(runner_silence_s=0.5))
        yield broker
        await broker.aclose()

    async def lost_on_the_way(
        self, broker: EmbeddedBroker, openai: AsyncOpenAI, steps: Sequence[Step], *, extra: dict[str, Any] | None = None
    ) -> list[Any]:
        first = ScriptedRunner(broker, runner_id="first")
        await first.start()
        first.delay_s = 0.01
        stream = await openai.chat.completions.create(**STREAM, extra_body=extra)
        chunks = []
        async for chunk in stream:
            chunks.append(chunk)
            if " So the" in (getattr(chunk.choices[0].delta, "reasoning_content", None) or ""):
                break
        await first.vanish()
        second = ScriptedRunner(broker, runner_id="second")
        second.steps = steps
        await second.start()
        try:
            async for chunk in stream:
                chunks.append(chunk)
        finally:
            await second.aclose()
            self.attempts = len(second.jobs)
        return chunks

    async def test_the_same_words_go_on_where_they_were(self, broker: EmbeddedBroker, openai: AsyncOpenAI) -> None:
        chunks = await self.lost_on_the_way(broker, openai, STEPS)
        assert text_of(chunks, "reasoning_content") == REASONING
        assert text_of(chunks, "content") == "RRDD"
        assert sum(choice.delta.role is not None for chunk in chunks for choice in chunk.choices) == 1
        assert ends_of(chunks) == {0: "stop"}
        assert self.attempts == 1

    @pytest.mark.parametrize(
        "steps",
        [
            (TextStep(index=0, text="Holes: third row."),),
            (*STEPS[:1], LatentStep(index=1, size=7, exit="early", duration_ms=1.0), STEPS[2]),
            STEPS[:2],  # it ends sooner
        ],
    )
    async def test_other_words_are_an_error(
        self, steps: tuple[Step, ...], broker: EmbeddedBroker, openai: AsyncOpenAI
    ) -> None:
        with pytest.raises(sdk.APIError, match="something else") as raised:
            await self.lost_on_the_way(broker, openai, steps)
        assert raised.value.code == "generation_failed"
        assert self.attempts == 1

    async def test_what_is_not_told_may_differ(self, broker: EmbeddedBroker, openai: AsyncOpenAI) -> None:
        other = (STEPS[0], LatentStep(index=1, size=7, exit="early", duration_ms=1.0), STEPS[2])
        chunks = await self.lost_on_the_way(broker, openai, other, extra={"latent": {"marker": False}})
        assert text_of(chunks, "reasoning_content") == REASONING.replace("[latent: 8]", "")
