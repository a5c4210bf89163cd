"""Ready, dead, counted, described."""

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from contracts.errors import BadSettings, GenerationFailed
from service.settings import load_settings
from tests.scripted_runner import MODEL, ScriptedRunner
from tests.service.conftest import until
from tests.service.helpers import check_error, live_frames


async def test_ready_when_a_runner_is(client: httpx.AsyncClient, broker: EmbeddedBroker) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    answer = await client.get("/readyz")
    check_error(answer, 503, "not_ready")
    assert answer.headers["retry-after"] == "10"
    assert (await client.get("/v1/models")).json() == {"object": "list", "data": []}

    runner = ScriptedRunner(broker)
    runner.is_ready, runner.detail = False, "loading the model"
    await runner.beat()
    for refused in (await client.get("/readyz"), await client.post("/v1/reason", json={"question": "?"})):
        assert "loading the model" in check_error(refused, 503, "not_ready")
        assert refused.headers["retry-after"] == "10"

    runner.is_ready = True
    await runner.beat()
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "runners": ["r1"]})


async def test_models_are_listed_once(client: httpx.AsyncClient, broker: EmbeddedBroker) -> None:
    for runner_id in ("r1", "r2"):
        runner = ScriptedRunner(broker, runner_id=runner_id)
        runner.is_ready = runner_id == "r2"
        await runner.beat()
    (model,) = (await client.get("/v1/models")).json()["data"]
    assert model.pop("created") > 1_760_000_000
    assert model == {
        "id": MODEL,
        "object": "model",
        "owned_by": "ilvr",
        "latent_size": 8,
        "latent_exit": "learned",
        "latent_ablation": "none",
        "is_ready": True,
    }


async def test_a_dead_engine_ends_every_response_and_then_refuses(
    live: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    waiting = asyncio.create_task(live.post("/v1/reason", json={"question": "?"}))
    await until(lambda: runner.num_working == 1)
    async with live.stream("POST", "/v1/reason", json={"question": "?", "stream": True}) as answer:
        events = live_frames(answer)
        await anext(events)
        await until(lambda: runner.num_working == 2)
        await runner.lose_engine()
        last = [event async for event in events][-1]
    assert (last.event, last.data["error"]["code"]) == ("response.failed", "engine_dead")
    check_error(await waiting, 503, "engine_dead")
    refused = await live.post("/v1/reason", json={"question": "?"})
    assert "the engine died" in check_error(refused, 503, "not_ready")
    assert (await live.get("/readyz")).status_code == 503
    assert (await live.get("/healthz")).status_code == 200


class TestSilence:
    @pytest.fixture
    async def broker(self) -> AsyncIterator[EmbeddedBroker]:
        broker = EmbeddedBroker(BrokerLimits(runner_silence_s=0.5))
        yield broker
        await broker.aclose()

    async def test_a_runner_that_vanishes_is_noticed(self, live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
        runner.pause()
        async with live.stream("POST", "/v1/reason", json={"question": "?", "stream": True}) as answer:
            events = live_frames(answer)
            await anext(events)
            await until(lambda: runner.num_working == 1)
            await runner.vanish()
            last = [event async for event in events][-1]
        assert (last.event, last.data["error"]["code"]) == ("response.failed", "engine_dead")
        check_error(await live.get("/readyz"), 503, "not_ready")


async def samples(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^ilvr_(gateway_\S+) (\S+)$", text, re.MULTILINE)}


async def test_each_request_is_counted_once(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    ask = {"question": "?"}
    await live.post("/v1/reason", json=ask)
    streamed = await live.post("/v1/reason", json={**ask, "stream": True})
    response_id = re.findall(r'"response_id":"(\w+)"', streamed.text)[0]
    await live.get(f"/v1/reason/{response_id}/events")
    await live.get(f"/v1/reason/{response_id}")
    await live.post(f"/v1/reason/{response_id}/cancel")
    await live.post("/v1/reason", json={})
    await live.post("/v1/reason", content=b"{")
    await live.get("/v1/reason/resp_none")
    runner.ending = "incomplete"
    await live.post("/v1/reason", json=ask)
    runner.fail_with = GenerationFailed("It broke.")
    await live.post("/v1/reason", json=ask)
    runner.fail_with = None
    runner.pause()
    async with live.stream("POST", "/v1/reason", json={**ask, "stream": True}) as answer:
        await anext(live_frames(answer))
        found = await samples(live)
        assert (found["gateway_responses_in_flight"], found["gateway_stream_readers"]) == (1, 1)
    await until(lambda: runner.num_working == 0)
    found = await samples(live)
    counted = {
        name: value
        for name, value in found.items()
        if value and name.startswith(("gateway_responses_total", "gateway_rejects_total"))
    }
    assert counted == {
        'gateway_responses_total{outcome="completed"}': 2,
        'gateway_responses_total{outcome="incomplete"}': 1,
        'gateway_rejects_total{reason="invalid_request"}': 1,
        'gateway_rejects_total{reason="malformed_body"}': 1,
        'gateway_responses_total{outcome="generation_failed"}': 1,
        'gateway_responses_total{outcome="cancelled"}': 1,
    }
    assert (found["gateway_responses_in_flight"], found["gateway_stream_readers"]) == (0, 0)
    assert found["gateway_response_seconds_count"] == 5
    assert found["gateway_time_to_first_step_seconds_count"] == 4


async def test_pages(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    assert 'href="/docs"' in (await client.get("/")).text
    assert (await client.get("/docs")).status_code == 200
    version = (await client.get("/version")).json()
    assert version["ilvr"]
    assert version["runners"][0]["engine"] == "scripted 1.0"


async def test_the_description_is_whole(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    schemas = described["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', (await client.get("/openapi.json")).text))
    assert references <= set(schemas)
    assert {
        "ReasonRequest",
        "Response",
        "Event",
        "StepDelta",
        "ImageRef",
        "ErrorBody",
        "ChatRequest",
        "ChatCompletion",
    } <= references
    assert "HTTPValidationError" not in references
    assert sorted(described["paths"]) == [
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/chat/completions",
        "/v1/images",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/reason",
        "/v1/reason/{response_id}",
        "/v1/reason/{response_id}/cancel",
        "/v1/reason/{response_id}/events",
        "/v1/responses",
        "/version",
    ]
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert ({"401", "403"} <= set(operation["responses"])) == path.startswith("/v1/")
            assert ("security" in operation) == path.startswith("/v1/")
    body = described["paths"]["/v1/reason"]["post"]["requestBody"]["content"]
    assert sorted(body) == ["application/json", "multipart/form-data"]
    (header,) = described["paths"]["/v1/reason"]["post"]["parameters"]
    assert (header["name"], header["in"]) == ("Idempotency-Key", "header")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_SERVICE_MAX_IMAGES", "4")
    settings = load_settings(disconnect_grace_s=1.0)
    assert (settings.max_images, settings.disconnect_grace_s, settings.ping_interval_s) == (4, 1.0, 10.0)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ILVR_SERVICE_MAX_IMAGE", "4", "did you mean ILVR_SERVICE_MAX_IMAGES?"),
        ("ILVR_SERVICE_MAX_IMAGES", "many", "ILVR_SERVICE_MAX_IMAGES: "),
        ("ILVR_SERVICE_MAX_BODY_BYTES", "2000000", "does not fit"),
    ],
)
def test_impossible_settings_stop_the_start(name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as refused:
        load_settings()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(BadSettings, match="ILVR_SERVICE_MAX_IMAGE"):
        load_settings(max_image=4)
