"""Cancelling: asked for, or because nobody is there any more."""

import asyncio
from typing import Any

import httpx
import pytest

from contracts.broker import Broker
from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import GRACE_S, until
from tests.service.helpers import frames, live_frames

STREAM = {"question": "?", "stream": True}


async def start_and_leave(live: httpx.AsyncClient) -> str:
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        response_id: str = (await anext(live_frames(answer))).data["response_id"]
    return response_id


async def state(live: httpx.AsyncClient, response_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await live.get(f"/v1/reason/{response_id}")).json()
    return found


async def test_a_stream_that_nobody_reads_is_cancelled_after_the_grace(
    live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    response_id = await start_and_leave(live)
    await until(lambda: runner.num_working == 1)
    await asyncio.sleep(GRACE_S / 3)
    assert (await state(live, response_id))["status"] in ("queued", "in_progress")
    await until(lambda: runner.num_working == 0)
    ended = await state(live, response_id)
    assert (ended["status"], ended["finish_reason"]) == ("cancelled", "cancelled")


class TestWithALongGrace:
    """Long enough for a machine that is busy with something else to come back in."""

    GRACE_S = 3.0

    @pytest.fixture
    def settings(self) -> ServiceSettings:
        return ServiceSettings(disconnect_grace_s=self.GRACE_S)

    async def test_coming_back_within_it_continues(self, live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
        runner.pause()
        response_id = await start_and_leave(live)
        await asyncio.sleep(0.1)
        async with live.stream("GET", f"/v1/reason/{response_id}/events", headers={"Last-Event-ID": "0"}) as answer:
            await asyncio.sleep(self.GRACE_S * 1.2)
            runner.resume()
            events = [event.event async for event in live_frames(answer)]
        assert (events[0], events[-1]) == ("response.in_progress", "response.completed")


async def test_the_response_lives_while_one_reader_is_left(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    async with live.stream("POST", "/v1/reason", json=STREAM) as first:
        response_id = (await anext(live_frames(first))).data["response_id"]
        async with live.stream("GET", f"/v1/reason/{response_id}/events") as second:
            events = live_frames(second)
            await anext(events)
            await first.aclose()
            await asyncio.sleep(GRACE_S * 2)
            runner.resume()
            assert [event.event async for event in events][-1] == "response.completed"


async def test_a_reader_that_leaves_does_not_end_what_another_client_waits_for(
    live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    waiting = asyncio.create_task(live.post("/v1/reason", json={"question": "?"}))
    await until(lambda: runner.num_working == 1)
    async with live.stream("GET", f"/v1/reason/{runner.jobs[0].response_id}/events") as answer:
        await anext(live_frames(answer))
    await asyncio.sleep(GRACE_S * 2)
    runner.resume()
    assert (await waiting).json()["status"] == "completed"


class TestWithoutGrace:
    @pytest.fixture
    def settings(self) -> ServiceSettings:
        return ServiceSettings(disconnect_grace_s=600)

    async def test_a_client_that_waits_and_goes_cancels_at_once(
        self, live: httpx.AsyncClient, runner: ScriptedRunner
    ) -> None:
        runner.pause()
        waiting = asyncio.create_task(live.post("/v1/reason", json={"question": "?"}))
        await until(lambda: runner.num_working == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await until(lambda: runner.num_working == 0)
        assert (await state(live, runner.jobs[0].response_id))["status"] == "cancelled"


async def test_a_client_that_goes_while_it_uploads_leaves_nothing(
    live: httpx.AsyncClient, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", live.base_url.port)
    writer.write(b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    async with asyncio.timeout(10):
        while 'reason="client_gone"} 1.0' not in (await live.get("/metrics")).text:
            pass
    assert runner.jobs == []
    assert "Traceback" not in caplog.text


async def test_cancelling_a_running_response(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.delay_s = 0.02
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        events = live_frames(answer)
        async for event in events:
            if event.event == "step.completed":
                break
        path = f"/v1/reason/{event.data['response_id']}/cancel"
        cancelled = (await live.post(path)).json()
        assert (cancelled["status"], len(cancelled["steps"])) == ("cancelled", 1)
        last = [event async for event in events][-1]
    assert last.event == "response.cancelled"
    assert last.data["response"] == cancelled
    assert (await live.post(path)).json() == cancelled


async def test_cancelling_a_waiting_response(live: httpx.AsyncClient, broker: Broker, runner: ScriptedRunner) -> None:
    runner.pause()
    running = [asyncio.create_task(live.post("/v1/reason", json={"question": str(n)})) for n in range(2)]
    await until(lambda: runner.num_working == 2)
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        events = live_frames(answer)
        response_id = (await anext(events)).data["response_id"]
        assert (await live.post(f"/v1/reason/{response_id}/cancel")).json()["status"] == "cancelled"
        assert [event.event async for event in events] == ["response.queued", "response.cancelled"]
    runner.resume()
    await asyncio.gather(*running)
    assert len(runner.jobs) == 2


async def test_cancelling_a_finished_response_changes_nothing(
    client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    done = (await client.post("/v1/reason", json={"question": "?"})).json()
    answer = await client.post(f"/v1/reason/{done['id']}/cancel")
    assert (answer.status_code, answer.json()) == (200, done)


async def test_a_cancelled_client_that_waits_gets_the_response(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    waiting = asyncio.create_task(live.post("/v1/reason", json={"question": "?"}))
    await until(lambda: runner.num_working == 1)
    await live.post(f"/v1/reason/{runner.jobs[0].response_id}/cancel")
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def test_a_cancel_that_takes_long_answers_anyway(live: httpx.AsyncClient, broker: Broker) -> None:
    runner = ScriptedRunner(broker)
    await runner.start()
    runner.pause()
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        response_id = (await anext(live_frames(answer))).data["response_id"]
        await until(lambda: runner.num_working == 1)
        await runner.vanish()
        state_then = (await live.post(f"/v1/reason/{response_id}/cancel")).json()
    assert state_then["status"] == "queued"


async def test_a_stream_ends_when_the_broker_is_closed(live: httpx.AsyncClient, broker: Broker) -> None:
    runner = ScriptedRunner(broker)
    await runner.start()
    runner.pause()
    reading = asyncio.create_task(live.post("/v1/reason", json=STREAM))
    await until(lambda: runner.num_working == 1)
    await runner.aclose()
    await broker.aclose()
    assert frames((await reading).text)[-1].data["error"]["code"] == "engine_dead"
