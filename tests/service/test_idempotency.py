"""A request that is sent again with its ``Idempotency-Key`` is answered once, however and wherever it comes back."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import pytest

from contracts.broker import Broker
from contracts.errors import Overloaded
from tests.scripted_runner import MODEL, ScriptedRunner
from tests.service.conftest import GRACE_S, until
from tests.service.helpers import base64_image, check_error, frames, live_frames, picture

KEY = {"Idempotency-Key": "order-1"}
ASK: dict[str, Any] = {"question": "Which way?", "max_tokens": 9, "metadata": {"k": "v"}}


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/reason", json={**ASK, **fields}, headers=KEY)


async def test_a_finished_response_comes_back(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    first = await ask(client)
    again = await ask(client)
    streamed = await ask(client, stream=True)
    assert (again.status_code, again.json()) == (200, first.json())
    events = frames(streamed.text)
    assert [event.data["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1].data["response"] == first.json()
    assert len(runner.jobs) == 1


async def test_a_running_response_is_joined_from_its_start(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.delay_s = 0.01
    async with live.stream("POST", "/v1/reason", json={**ASK, "stream": True}, headers=KEY) as first:
        events = live_frames(first)
        async for event in events:
            if event.event == "step.completed":
                break
        waiting = asyncio.create_task(ask(live))
        joined = frames((await ask(live, stream=True)).text)
        last = [event async for event in events][-1]
    assert [event.data["sequence_number"] for event in joined] == list(range(len(joined)))
    assert joined[-1].data == last.data
    assert (await waiting).json() == last.data["response"]
    assert len(runner.jobs) == 1


async def test_twenty_at_once_are_one_run(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.delay_s = 0.005
    answers = await asyncio.gather(*(ask(live, stream=index % 2 == 0) for index in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    streams = [frames(answer.text) for answer in answers[::2]]
    objects = [answer.json() for answer in answers[1::2]]
    assert all(stream[-1].data["response"] == objects[0] for stream in streams)
    assert all(found == objects[0] for found in objects)
    assert len(runner.jobs) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"question": "Which way"},
        {"max_tokens": 8},
        {"metadata": {}},
        {"latent": {"mode": "off"}},
        {"background": True},
        {"timeout_s": 60},
        {"model": MODEL},
        {"images": [base64_image(picture(3, 3))]},
    ],
)
async def test_another_body_is_a_conflict(
    other: dict[str, Any], client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    await ask(client)
    check_error(await ask(client, **other), 409, "idempotency_conflict")
    assert len(runner.jobs) == 1


async def test_what_is_meant_counts_and_not_how_it_is_written(
    client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    """One picture as base64, as a file part and by its id, and fields that say what their absence says."""
    data = picture(5, 4)
    image_id = (await client.post("/v1/images", files={"image": data})).json()["id"]
    answers = [
        await ask(client, images=[base64_image(data)]),
        await ask(client, images=[{"type": "ref", "id": image_id}], stop=[], background=False, latent={"mode": "on"}),
        await client.post(
            "/v1/reason",
            data={"question": ASK["question"], "max_tokens": "9", "metadata.k": "v"},
            files={"image": data},
            headers=KEY,
        ),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await ask(client, images=[base64_image(picture(5, 4))])  # other noise, same size
    check_error(other, 409, "idempotency_conflict")


async def test_a_request_that_was_refused_may_come_again(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    check_error(await ask(client, images=[base64_image(b"none")]), 415, "not_an_image", "images.0.data")
    assert (await ask(client)).status_code == 200


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "tab\tbed", "ümlaut"])
async def test_a_key_is_visible_ascii(key: str, client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    headers = [(b"idempotency-key", key.encode())]
    answer = await client.post("/v1/reason", json=ASK, headers=headers)
    check_error(answer, 422, "invalid_request", "Idempotency-Key")


async def test_a_full_queue_lets_in_who_was_here_before(
    live: httpx.AsyncClient, broker: Broker, runner: ScriptedRunner
) -> None:
    runner.pause()
    first = asyncio.create_task(ask(live))
    await until(lambda: runner.num_working == 1)
    others = [asyncio.create_task(live.post("/v1/reason", json={"question": str(n)})) for n in range(3)]
    await until_full(broker)
    check_error(await live.post("/v1/reason", json=ASK), 429, "overloaded")
    again = asyncio.create_task(ask(live))
    await asyncio.sleep(0.05)
    assert not again.done()
    runner.resume()
    assert (await again).json() == (await first).json()
    await asyncio.gather(*others)


async def until_full(broker: Broker) -> None:
    async with asyncio.timeout(10):
        with suppress(Overloaded):
            while True:
                await broker.check_room(0)
                await asyncio.sleep(0.005)


async def test_a_client_that_waits_may_come_back_with_its_key(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    cut = asyncio.create_task(ask(live))
    await until(lambda: runner.num_working == 1)
    cut.cancel()
    await asyncio.wait([cut])
    await asyncio.sleep(GRACE_S / 3)
    again = asyncio.create_task(ask(live))
    await asyncio.sleep(GRACE_S * 2)
    runner.resume()
    assert (await again).json()["status"] == "completed"
    assert len(runner.jobs) == 1


async def test_one_of_two_that_wait_may_leave(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    stays, leaves = (asyncio.create_task(ask(live)) for _ in range(2))
    await until(lambda: runner.num_working == 1)
    await asyncio.sleep(0.05)
    leaves.cancel()
    await asyncio.sleep(GRACE_S * 2)
    runner.resume()
    assert (await stays).json()["status"] == "completed"
