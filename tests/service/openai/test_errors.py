"""Every failure is the exception that OpenAI's clients have for it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai as sdk
import pytest
from openai import AsyncOpenAI
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from contracts import errors as e
from service.app import create_app
from service.settings import ServiceSettings
from tests.scripted_runner import MODEL, ScriptedRunner
from tests.service.api_keys import Keys
from tests.service.conftest import serving, until
from tests.service.openai.chunks import QUESTION
from tests.service.openai.conftest import connected

ASK: dict[str, Any] = {"model": MODEL, "messages": QUESTION}


async def read(stream: AsyncIterator[Any], seen: list[Any]) -> None:
    async for chunk in stream:
        seen.append(chunk)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (e.PromptTooLong("Too long."), sdk.APIStatusError, 413),
        (e.GenerationFailed("It broke."), sdk.InternalServerError, 500),
        (e.EngineDead("It died."), sdk.InternalServerError, 503),
        (e.DeadlineExceeded("Too late."), sdk.InternalServerError, 504),
    ],
)
async def test_a_response_that_failed_is_a_status(
    error: e.IlvrError, kind: type[sdk.APIStatusError], status: int, openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    runner.fail_with = error
    with pytest.raises(kind) as raised:
        await openai.chat.completions.create(**ASK)
    assert (raised.value.status_code, raised.value.code) == (status, error.code)
    assert str(error) in raised.value.message


async def test_one_choice_that_failed_fails_all(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    runner.fail_with = e.GenerationFailed("It broke.")
    with pytest.raises(sdk.InternalServerError):
        await openai.chat.completions.create(**ASK, n=2, temperature=1)


async def test_after_the_first_byte_it_is_an_error_in_the_stream(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    runner.fail_with = e.GenerationFailed("It broke.")
    for copies in ({}, {"n": 2, "temperature": 1}):
        seen: list[Any] = []
        stream = await openai.chat.completions.create(**ASK, **copies, stream=True)
        with pytest.raises(sdk.APIError, match="It broke") as raised:
            await read(stream, seen)
        assert len(seen) > 1
        assert not isinstance(raised.value, sdk.APIStatusError)
        assert raised.value.code == "generation_failed"
        assert raised.value.type == "server_error"


async def test_an_unknown_model_is_not_found(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    with pytest.raises(sdk.NotFoundError) as raised:
        await openai.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(sdk.NotFoundError):
        await openai.models.retrieve("org/gpt-9")


async def test_a_body_that_is_none_is_a_bad_request(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    with pytest.raises(sdk.BadRequestError) as raised:
        await openai.post("/chat/completions", content=b"{", cast_to=object)
    assert raised.value.code == "malformed_body"


async def test_without_a_runner_it_is_unavailable(openai: AsyncOpenAI) -> None:
    with pytest.raises(sdk.InternalServerError) as raised:
        await openai.chat.completions.create(**ASK)
    assert (raised.value.status_code, raised.value.code) == (503, "not_ready")
    assert raised.value.response.headers["retry-after"] == "10"


async def test_a_full_queue_is_a_rate_limit(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    """Two run, two wait. A request with two choices, of which one has room, leaves nothing behind."""
    runner.pause()
    asked = [asyncio.create_task(openai.chat.completions.create(**ASK)) for _ in range(2)]
    await until(lambda: runner.num_working == 2)
    asked.append(asyncio.create_task(openai.chat.completions.create(**ASK)))
    await asyncio.sleep(0.1)
    with pytest.raises(sdk.RateLimitError) as raised:
        await openai.chat.completions.create(**ASK, n=2, temperature=1)
    assert raised.value.code == "overloaded"
    assert int(raised.value.response.headers["retry-after"]) >= 1
    asked.append(asyncio.create_task(openai.chat.completions.create(**ASK)))  # has the room that the copy gave back
    await asyncio.sleep(0.1)
    with pytest.raises(sdk.RateLimitError):
        await openai.chat.completions.create(**ASK)
    runner.resume()
    answers = await asyncio.gather(*asked)
    assert [answer.choices[0].finish_reason for answer in answers] == ["stop"] * 4
    assert len(runner.jobs) == 4


async def test_one_that_was_cancelled_is_not_asked_again(
    live: httpx.AsyncClient, openai: AsyncOpenAI, runner: ScriptedRunner
) -> None:
    runner.pause()
    patient = openai.with_options(max_retries=2)
    waiting = asyncio.create_task(patient.chat.completions.create(**ASK))
    await until(lambda: runner.num_working == 1)
    await live.post(f"/v1/reason/{runner.jobs[0].response_id}/cancel")
    with pytest.raises(sdk.BadRequestError) as raised:
        await waiting
    assert raised.value.code == "response_cancelled"
    assert len(runner.jobs) == 1


async def test_one_whose_time_is_up_is_not_asked_again(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    """504 or not: its time would be up again."""
    runner.fail_with = e.DeadlineExceeded("Too late.")
    with pytest.raises(sdk.InternalServerError) as raised:
        await openai.with_options(max_retries=2).chat.completions.create(**ASK)
    assert raised.value.code == "deadline_exceeded"
    assert len(runner.jobs) == 1


async def test_the_client_tries_again_what_may_work_later(
    openai: AsyncOpenAI, runner: ScriptedRunner, broker: EmbeddedBroker
) -> None:
    runner.fail_with = e.GenerationFailed("It broke.")
    patient = openai.with_options(max_retries=1)
    asked = asyncio.create_task(patient.chat.completions.create(**ASK))
    await until(lambda: len(runner.jobs) == 1)
    await until(lambda: runner.num_working == 0)
    runner.fail_with = None
    assert (await asked).choices[0].message.content == "RRDD"
    assert len(runner.jobs) == 2


class TestKeys:
    @pytest.fixture
    def keys(self) -> Keys:
        keys = Keys()
        keys.add("asks", "reason")
        keys.add("uploads", "images")
        keys.add("slow", "reason", rate_per_minute=1, burst=3)
        keys.add("one", "reason", max_open=1)
        return keys

    @pytest.fixture
    async def gateway(
        self, broker: EmbeddedBroker, settings: ServiceSettings, keys: Keys
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(broker, settings.model_copy(update={"api_keys": keys.setting}), CollectorRegistry())
        async with serving(app) as client:
            yield client
        await app.state.gateway.aclose()

    async def test_a_key_is_asked_for_and_its_scope(
        self, gateway: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
    ) -> None:
        async with connected(gateway, "sk-wrong") as client:
            with pytest.raises(sdk.AuthenticationError):
                await client.chat.completions.create(**ASK)
            with pytest.raises(sdk.AuthenticationError):
                await client.models.retrieve(MODEL)
        async with connected(gateway, keys.tokens["uploads"]) as client:
            with pytest.raises(sdk.PermissionDeniedError):
                await client.chat.completions.create(**ASK)
            assert (await client.models.retrieve(MODEL)).id == MODEL
        assert runner.jobs == []

    async def test_a_completion_is_its_keys_own(
        self, gateway: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
    ) -> None:
        async with connected(gateway, keys.tokens["asks"]) as client:
            completion = await client.chat.completions.create(**ASK)
        path = f"/v1/reason/{completion.id}"
        assert (await gateway.get(path, headers=keys.headers("asks"))).status_code == 200
        assert (await gateway.get(path, headers=keys.headers("slow"))).status_code == 404

    async def test_each_choice_counts(self, gateway: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys) -> None:
        async with connected(gateway, keys.tokens["slow"]) as client:
            with pytest.raises(sdk.UnprocessableEntityError, match="at most 3"):
                await client.chat.completions.create(**ASK, n=4, temperature=1)  # that counts as one
            await client.chat.completions.create(**ASK, n=2, temperature=1)
            with pytest.raises(sdk.RateLimitError) as raised:
                await client.chat.completions.create(**ASK)
        assert raised.value.code == "rate_limited"
        assert 50 <= int(raised.value.response.headers["retry-after"]) <= 60
        assert len(runner.jobs) == 2

    async def test_who_waits_as_told_can_pay_for_all_choices(
        self, gateway: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
    ) -> None:
        """One token a minute: two are left, the request takes one, two copies want two, and then it is asked again."""
        async with connected(gateway, keys.tokens["slow"]) as client:
            await client.chat.completions.create(**ASK)
            with pytest.raises(sdk.RateLimitError) as raised:
                await client.chat.completions.create(**ASK, n=3, temperature=1)
        assert 110 <= int(raised.value.response.headers["retry-after"]) <= 120
        assert len(runner.jobs) == 1

    async def test_choices_beyond_what_may_be_open_are_none(
        self, gateway: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
    ) -> None:
        runner.pause()
        async with connected(gateway, keys.tokens["one"]) as client:
            with pytest.raises(sdk.RateLimitError):
                await client.chat.completions.create(**ASK, n=2, temperature=1)
            await until(lambda: runner.num_working == 0)
            runner.resume()
            await client.chat.completions.create(**ASK)


async def test_an_idempotency_key_is_one_response(openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    again: dict[str, Any] = {**ASK, "extra_headers": {"Idempotency-Key": "k1"}}
    first, second = [await openai.chat.completions.create(**again) for _ in range(2)]
    assert first == second
    assert len(runner.jobs) == 1
    with pytest.raises(sdk.ConflictError):
        await openai.chat.completions.create(**again, seed=1)
    with pytest.raises(sdk.UnprocessableEntityError) as raised:
        await openai.chat.completions.create(**again, n=2, temperature=1)
    assert raised.value.param == "n"


async def test_refusals_are_counted(live: httpx.AsyncClient, openai: AsyncOpenAI, runner: ScriptedRunner) -> None:
    with pytest.raises(sdk.UnprocessableEntityError):
        await openai.chat.completions.create(**ASK, logprobs=True)
    assert 'ilvr_gateway_rejects_total{reason="invalid_request"} 1.0' in (await live.get("/metrics")).text
