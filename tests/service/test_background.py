"""``background: true``: asked and left, read later by id or by events."""

import asyncio

import httpx

from tests.scripted_runner import ANSWER, ScriptedRunner
from tests.service.conftest import GRACE_S, until
from tests.service.helpers import frames, live_frames, picture

ASK = {"question": "?", "background": True}


async def test_the_response_comes_at_once_and_its_answer_later(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    answer = await live.post("/v1/reason", json=ASK)
    assert answer.status_code == 200
    response = answer.json()
    assert (response["status"], response["steps"], response["answer"]) == ("queued", [], None)
    path = f"/v1/reason/{response['id']}"
    await until(lambda: runner.num_working == 1)
    await asyncio.sleep(GRACE_S * 2)
    assert (await live.get(path)).json()["status"] == "queued"
    runner.resume()
    events = frames((await live.get(f"{path}/events")).text)
    assert events[-1].event == "response.completed"
    assert [event.data["sequence_number"] for event in events] == list(range(len(events)))
    assert (await live.get(path)).json()["answer"] == ANSWER


async def test_it_is_never_cancelled_by_absence(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    """Neither when its first stream is left nor when somebody looks in and leaves."""
    runner.pause()
    async with live.stream("POST", "/v1/reason", json={**ASK, "stream": True}) as answer:
        response_id = (await anext(live_frames(answer))).data["response_id"]
    async with live.stream("GET", f"/v1/reason/{response_id}/events") as answer:
        await anext(live_frames(answer))
    await asyncio.sleep(GRACE_S * 3)
    runner.resume()
    await until(lambda: runner.num_working == 0)
    assert (await live.get(f"/v1/reason/{response_id}")).json()["status"] == "completed"


async def test_it_can_be_cancelled(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    response_id = (await live.post("/v1/reason", json=ASK)).json()["id"]
    await until(lambda: runner.num_working == 1)
    cancelled = (await live.post(f"/v1/reason/{response_id}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    await until(lambda: runner.num_working == 0)


async def test_a_form_can_ask_for_it(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    data = {"question": "?", "background": "true"}
    answer = await client.post("/v1/reason", data=data, files={"image": picture()})
    assert answer.status_code == 200
    await until(lambda: len(runner.jobs) == 1 and runner.num_working == 0)
    assert runner.jobs[0].background


async def test_with_a_key_it_is_asked_once(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    headers = {"Idempotency-Key": "k"}
    first = (await client.post("/v1/reason", json=ASK, headers=headers)).json()
    await until(lambda: len(runner.jobs) == 1 and runner.num_working == 0)
    again = (await client.post("/v1/reason", json=ASK, headers=headers)).json()
    assert (again["id"], again["status"]) == (first["id"], "completed")
    assert len(runner.jobs) == 1
