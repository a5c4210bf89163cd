"""Every request is counted and told of once, by its route and how it went."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from contracts.errors import BrokerUnavailable
from service.app import create_app
from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.api_keys import Keys
from tests.service.conftest import until
from tests.service.helpers import live_frames, picture

ASK = {"question": "?"}


async def counted(client: httpx.AsyncClient) -> dict[tuple[str, str, str], float]:
    """Requests by method, route and status, those for /metrics left out."""
    text = (await client.get("/metrics")).text
    rows = re.findall(
        r'^ilvr_gateway_http_requests_total\{method="(.+)",route="(.+)",status="(\d+)"\} (\S+)$', text, re.M
    )
    return {(method, route, status): float(count) for method, route, status, count in rows if route != "/metrics"}


async def value(client: httpx.AsyncClient, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", (await client.get("/metrics")).text, re.M)
    return float(found)


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "ilvr.access"]


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="ilvr.access")


async def test_requests_by_route_and_status(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    response_id = (await client.post("/v1/reason", json=ASK)).json()["id"]
    for path in (f"/v1/reason/{response_id}", "/v1/reason/resp_none", "/v1/nonsense", "/v1/reason"):
        await client.get(path)
    await client.request("BREW", "/v1/reason")
    assert await counted(client) == {
        ("POST", "/v1/reason", "200"): 1,
        ("GET", "/v1/reason/{response_id}", "200"): 1,
        ("GET", "/v1/reason/{response_id}", "404"): 1,
        ("GET", "none", "404"): 1,
        ("GET", "/v1/reason", "405"): 1,
        ("OTHER", "/v1/reason", "405"): 1,
    }


async def test_one_line_for_each_request(
    client: httpx.AsyncClient, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.post("/v1/reason", json={**ASK, "stream": True})
    await client.get("/healthz")
    (request, probe) = lines(caplog)
    assert (request.levelname, request.getMessage()) == ("INFO", "request")
    assert (request.method, request.route, request.status) == ("POST", "/v1/reason", 200)
    assert (request.bytes, request.is_whole, request.owner) == (len(answer.content), True, "")
    assert 0 < request.duration_s < 10
    assert (probe.levelname, probe.route) == ("DEBUG", "/healthz")


async def test_a_probe_that_is_not_well_is_told_of(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    await client.get("/readyz")
    assert [(line.levelname, line.status) for line in lines(caplog)] == [("INFO", 503)]


async def test_who_leaves_before_the_answer_is_499(
    live: httpx.AsyncClient, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.pause()
    asking = asyncio.create_task(live.post("/v1/reason", json=ASK))
    await until(lambda: runner.num_working == 1)
    assert await value(live, "ilvr_gateway_http_requests_in_flight") == 2  # this one and that for the metrics
    asking.cancel()
    await until(lambda: any(line.route == "/v1/reason" for line in lines(caplog)))
    assert await counted(live) == {("POST", "/v1/reason", "499"): 1}
    assert await value(live, "ilvr_gateway_http_requests_in_flight") == 1


async def test_a_stream_that_was_left_is_not_whole(
    live: httpx.AsyncClient, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.pause()
    async with live.stream("POST", "/v1/reason", json={**ASK, "stream": True}) as answer:
        await anext(live_frames(answer))
    await until(lambda: len(lines(caplog)) == 1)
    (line,) = lines(caplog)
    assert (line.status, line.is_whole) == (200, False)


async def test_a_defect_is_500(app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError

    assert (await client.get("/defect")).status_code == 500
    assert await counted(client) == {("GET", "/defect", "500"): 1}
    assert [(line.route, line.status, line.is_whole) for line in lines(caplog)][:1] == [("/defect", 500, False)]


async def test_refused_by_key_and_owned_by_key(
    broker: EmbeddedBroker, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys()
    keys.add("web", "reason")
    app = create_app(broker, ServiceSettings(api_keys=keys.setting), CollectorRegistry())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await client.get("/v1/reason/resp_none/events")
        await client.post("/v1/reason", json=ASK, headers=keys.headers("web"))
        assert await counted(client) == {
            ("GET", "/v1/reason/{response_id}/events", "401"): 1,
            ("POST", "/v1/reason", "200"): 1,
        }
    await app.state.gateway.aclose()
    refused, answered = lines(caplog)[:2]
    assert refused.owner == ""
    assert answered.owner.startswith("web.")


async def test_waiting_and_running(live: httpx.AsyncClient, broker: EmbeddedBroker) -> None:
    runner = ScriptedRunner(broker, room=1)
    runner.pause()
    await runner.start()
    asking = [asyncio.create_task(live.post("/v1/reason", json=ASK)) for _ in range(2)]
    await until(lambda: runner.num_working == 1)
    assert await value(live, "ilvr_gateway_responses_in_flight") == 2
    assert await value(live, "ilvr_gateway_responses_waiting") == 2  # the paused one has not been scheduled either
    runner.resume()
    await asyncio.gather(*asking)
    assert await value(live, "ilvr_gateway_responses_in_flight") == 0
    assert await value(live, "ilvr_gateway_responses_waiting") == 0
    assert await value(live, "ilvr_gateway_queue_seconds_count") == 2
    await runner.aclose()


@pytest.mark.parametrize("path", ["/v1/reason", "/v1/chat/completions", "/v1/responses"])
async def test_gaps_of_text_are_those_of_streams(path: str, client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    asks = {
        "/v1/reason": ASK,
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "?"}]},
        "/v1/responses": {"input": "?"},
    }
    for is_stream in (False, True):
        await client.post(path, json={**asks[path], "stream": is_stream})
        expected = 2 * is_stream  # two texts of two deltas
        assert await value(client, "ilvr_gateway_text_gap_seconds_count") == expected


async def test_image_bytes_are_those_of_the_files(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    file = picture(20, 20)
    await client.post("/v1/images", content=file)
    await client.post("/v1/reason", data=ASK, files={"image": file})
    await client.post("/v1/images", content=b"no image")
    assert await value(client, "ilvr_gateway_image_bytes_total") == 2 * len(file)


class TestWithoutBroker:
    @pytest.fixture
    async def broker(self) -> AsyncIterator[EmbeddedBroker]:
        class Away(EmbeddedBroker):
            is_away = False

            async def runners(self):
                if self.is_away:
                    raise BrokerUnavailable("away")
                return await super().runners()

        broker = Away()
        yield broker
        await broker.aclose()

    async def test_metrics_are_there_and_say_so(self, client: httpx.AsyncClient, broker: EmbeddedBroker) -> None:
        runner = ScriptedRunner(broker)
        await runner.beat()
        assert await value(client, "ilvr_gateway_broker_up") == 1
        assert await value(client, 'ilvr_gateway_runners{state="ready"}') == 1
        broker.is_away = True
        assert await value(client, "ilvr_gateway_broker_up") == 0
        text = (await client.get("/metrics")).text
        assert "ilvr_gateway_runners{" not in text  # not known is not none
        broker.is_away = False
        runner.is_ready = False
        await runner.beat()
        assert await value(client, 'ilvr_gateway_runners{state="ready"}') == 0
        assert await value(client, 'ilvr_gateway_runners{state="not_ready"}') == 1
