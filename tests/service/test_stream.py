"""Streams: order, numbers, resuming, several readers at once, pings."""

import asyncio

import httpx
import pytest

from contracts.broker import Broker
from service.sse import PING
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import until
from tests.service.helpers import check_error, frames, live_frames, live_parts

STREAM = {"question": "?", "stream": True}
ORDER = [
    "response.created",
    "response.in_progress",
    *["step.started", "step.delta", "step.delta", "step.completed"] * 3,
    "response.completed",
]


async def test_a_stream_tells_the_whole_story_in_order(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    answer = await client.post("/v1/reason", json=STREAM)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"]
    assert "content-length" not in answer.headers
    events = frames(answer.text)
    assert [event.event for event in events] == ORDER
    assert [event.id for event in events] == [str(n) for n in range(len(ORDER))]
    assert len({event.data["response_id"] for event in events}) == 1
    by_step = {
        index: [event.data for event in events if event.event == "step.delta" and event.data["index"] == index]
        for index in range(3)
    }
    response = events[-1].data["response"]
    for step in response["steps"]:
        deltas = by_step[step["index"]]
        if step["type"] == "text":
            assert "".join(delta["text"] for delta in deltas) == step["text"]
            assert all("size" not in delta for delta in deltas)
        else:
            assert [delta["size"] for delta in deltas] == [4, 8]
            assert all("text" not in delta for delta in deltas)
    completed = [event.data for event in events if event.event == "step.completed"]
    assert [(data["step_type"], data["index"]) for data in completed] == [("text", 0), ("latent", 1), ("text", 2)]
    assert completed[1]["exit"] == "full"
    assert (await client.get(f"/v1/reason/{response['id']}")).json() == response


async def test_text_is_sent_as_it_is(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    answer = await client.post("/v1/reason", json=STREAM)
    assert "✓" in answer.text
    assert all(line == "" or line.split(":")[0] in ("id", "event", "data") for line in answer.text.split("\n"))


@pytest.mark.parametrize("mechanism", ["query", "header", "both"])
@pytest.mark.parametrize("after", [-1, 0, 5, 13])
async def test_a_finished_stream_is_replayed_from_anywhere(
    after: int, mechanism: str, client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    whole = frames((await client.post("/v1/reason", json=STREAM)).text)
    params = {"query": {"starting_after": after}, "header": {}, "both": {"starting_after": 2}}[mechanism]
    headers = {"Last-Event-ID": str(after)} if mechanism != "query" and after >= 0 else {}
    if mechanism == "both" and after < 0:
        after = 2
    answer = await client.get(f"/v1/reason/{whole[0].data['response_id']}/events", params=params, headers=headers)
    assert [event.data for event in frames(answer.text)] == [event.data for event in whole[after + 1 :]]


async def test_after_the_last_event_there_is_nothing(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    whole = frames((await client.post("/v1/reason", json=STREAM)).text)
    answer = await client.get(
        f"/v1/reason/{whole[0].data['response_id']}/events", headers={"Last-Event-ID": whole[-1].id}
    )
    assert (answer.status_code, answer.content) == (204, b"")


async def test_bad_sequence_numbers_are_refused(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    response_id = (await client.post("/v1/reason", json={"question": "?"})).json()["id"]
    path = f"/v1/reason/{response_id}/events"
    for text in ("x", "-2", "1.5", "100000000000000"):
        answer = await client.get(path, params={"starting_after": text})
        check_error(answer, 422, "invalid_request", "starting_after")
    for text in ("x", "-1", "²", "1" * 5000):
        answer = await client.get(path, headers=[(b"last-event-id", text.encode("latin-1"))])
        check_error(answer, 422, "invalid_request", "Last-Event-ID")


async def test_readers_at_different_places_see_the_same(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.delay_s = 0.01
    async with live.stream("POST", "/v1/reason", json=STREAM) as first:
        events = live_frames(first)
        path = f"/v1/reason/{(await anext(events)).data['response_id']}/events"
        followers = [
            asyncio.create_task(live.get(path, params={"starting_after": after})) for after in (-1, -1, 0, 4, 13)
        ]
        rest = [event.data async for event in events]
    for follower, after in zip(followers, (-1, -1, 0, 4, 13), strict=True):
        got = [event.data for event in frames((await follower).text)]
        assert got == rest[max(after, 0) :] or (after < 0 and got[1:] == rest)
        assert [data["sequence_number"] for data in got] == list(range(after + 1, len(ORDER)))


async def test_events_arrive_when_they_happen_and_pings_when_nothing_does(
    live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        parts = live_parts(answer)
        assert (await anext(parts)).startswith("id: 0\nevent: response.created\n")
        for _ in range(3):
            assert await anext(parts) == PING.decode().strip()
        runner.resume()
        rest = [part async for part in parts]
    assert "response.completed" in rest[-1]


async def test_a_waiting_response_says_so(live: httpx.AsyncClient, broker: Broker, runner: ScriptedRunner) -> None:
    runner.pause()
    running = [asyncio.create_task(live.post("/v1/reason", json={"question": str(n)})) for n in range(2)]
    await until(lambda: runner.num_working == 2)
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        events = live_frames(answer)
        assert (await anext(events)).event == "response.created"
        queued = await anext(events)
        assert (queued.event, queued.data["position"]) == ("response.queued", 1)
        state = (await live.get(f"/v1/reason/{queued.data['response_id']}")).json()
        assert state["status"] == "queued"
        runner.resume()
        assert [event.event async for event in events][-1] == "response.completed"
    assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]


async def test_a_running_response_can_be_looked_at(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.delay_s = 0.02
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        events = live_frames(answer)
        async for event in events:
            if event.event == "step.completed":
                state = (await live.get(f"/v1/reason/{event.data['response_id']}")).json()
                assert (state["status"], len(state["steps"])) == ("in_progress", event.data["index"] + 1)
                break
        assert [event.event async for event in events][-1] == "response.completed"


async def test_a_full_queue_refuses_at_once(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    asked = [asyncio.create_task(live.post("/v1/reason", json={"question": str(n)})) for n in range(2)]
    await until(lambda: runner.num_working == 2)
    asked += [asyncio.create_task(live.post("/v1/reason", json={"question": str(n)})) for n in range(2)]
    await asyncio.sleep(0.1)
    answer = await live.post("/v1/reason", json=STREAM)
    check_error(answer, 429, "overloaded")
    assert answer.headers["retry-after"] == "5"  # nothing has ended yet, so no rate is known
    runner.resume()
    assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 4
