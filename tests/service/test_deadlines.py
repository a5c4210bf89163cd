"""``timeout_s``: a request that takes longer ends, wherever it is then, and its place is free."""

import asyncio

import httpx
import pytest

from contracts.broker import Broker
from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import until
from tests.service.helpers import check_error, frames

LATE = {"question": "?", "timeout_s": 0.3}


async def test_a_request_that_waits_gets_504(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    answer = await live.post("/v1/reason", json=LATE)
    check_error(answer, 504, "deadline_exceeded")
    assert "retry-after" not in answer.headers
    await until(lambda: runner.num_working == 0)


async def test_a_stream_ends_with_failed(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    last = frames((await live.post("/v1/reason", json={**LATE, "stream": True})).text)[-1]
    assert last.event == "response.failed"
    assert (last.data["error"]["code"], last.data["error"]["retryable"]) == ("deadline_exceeded", False)
    assert last.data["response"]["status"] == "failed"
    await until(lambda: runner.num_working == 0)


async def test_time_in_the_queue_counts(live: httpx.AsyncClient, broker: Broker, runner: ScriptedRunner) -> None:
    runner.pause()
    running = [asyncio.create_task(live.post("/v1/reason", json={"question": str(n)})) for n in range(2)]
    await until(lambda: runner.num_working == 2)
    events = frames((await live.post("/v1/reason", json={**LATE, "stream": True})).text)
    assert [event.event for event in events] == ["response.created", "response.queued", "response.failed"]
    assert events[-1].data["error"]["code"] == "deadline_exceeded"
    runner.resume()
    assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
    assert len(runner.jobs) == 2


@pytest.mark.parametrize("timeout_s", [0, -1, 3601, "soon"])
async def test_a_timeout_has_bounds(timeout_s: object, client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    answer = await client.post("/v1/reason", json={"question": "?", "timeout_s": timeout_s})
    check_error(answer, 422, "invalid_request", "timeout_s")


async def test_the_job_says_it(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    await client.post("/v1/reason", json={"question": "?", "timeout_s": 12.5})
    await client.post("/v1/reason", json={"question": "?"}, headers={"X-Request-Id": "trace-7"})
    assert [job.timeout_s for job in runner.jobs] == [12.5, 600.0]
    assert runner.jobs[1].request_id == "trace-7"


class TestSmallerLimit:
    @pytest.fixture
    def settings(self, settings: ServiceSettings) -> ServiceSettings:
        return settings.model_copy(update={"max_timeout_s": 5.0})

    async def test_the_default_is_within_it(self, client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
        await client.post("/v1/reason", json={"question": "?"})
        assert runner.jobs[0].timeout_s == 5.0
