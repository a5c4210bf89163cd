"""Two gateways on one broker: what is read at one is not cancelled by the other, and what nobody reads is."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from broker.open import open_broker
from broker.settings import BrokerSettings
from contracts.broker import Broker
from service import disconnect
from service.app import create_app
from service.settings import ServiceSettings
from tests.broker.redis_server import RedisServer, fresh_prefix
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import GRACE_S, serving, until
from tests.service.helpers import live_frames

STREAM = {"question": "?", "stream": True}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
async def brokers(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Broker, Broker]]:
    """What each of the gateways has: the same object, or two that share a server as two processes do."""
    settings = BrokerSettings()
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        settings = BrokerSettings(redis_url=server.url, key_prefix=fresh_prefix())
    first = await open_broker(settings)
    second = await open_broker(settings) if request.param == "redis" else first
    yield first, second
    await second.aclose()
    await first.aclose()


@pytest.fixture
def broker(brokers: tuple[Broker, Broker]) -> Broker:
    return brokers[0]


@pytest.fixture
async def second_app(brokers: tuple[Broker, Broker], settings: ServiceSettings) -> AsyncIterator[FastAPI]:
    app = create_app(brokers[1], settings, CollectorRegistry())
    yield app
    await app.state.gateway.aclose()


@pytest.fixture
async def second(second_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(second_app) as client:
        yield client


async def start_and_leave(client: httpx.AsyncClient) -> str:
    async with client.stream("POST", "/v1/reason", json=STREAM) as answer:
        response_id: str = (await anext(live_frames(answer))).data["response_id"]
    return response_id


async def status(client: httpx.AsyncClient, response_id: str) -> str:
    found: str = (await client.get(f"/v1/reason/{response_id}")).json()["status"]
    return found


async def test_a_stream_goes_on_at_the_other_gateway(
    live: httpx.AsyncClient, second: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    response_id = await start_and_leave(live)
    await asyncio.sleep(GRACE_S / 3)
    async with second.stream("GET", f"/v1/reason/{response_id}/events", headers={"Last-Event-ID": "0"}) as answer:
        await asyncio.sleep(GRACE_S * 3)
        runner.resume()
        events = [event async for event in live_frames(answer)]
    assert [event.data["sequence_number"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1].event == "response.completed"


async def test_who_looks_in_at_the_other_gateway_ends_nothing_by_leaving(
    live: httpx.AsyncClient, second: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    async with live.stream("POST", "/v1/reason", json=STREAM) as answer:
        events = live_frames(answer)
        response_id = (await anext(events)).data["response_id"]
        async with second.stream("GET", f"/v1/reason/{response_id}/events") as other:
            await anext(live_frames(other))
        await asyncio.sleep(GRACE_S * 3)
        runner.resume()
        assert [event.event async for event in events][-1] == "response.completed"


async def test_the_last_one_to_leave_anywhere_begins_the_grace(
    live: httpx.AsyncClient, second: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    response_id = await start_and_leave(live)
    async with second.stream("GET", f"/v1/reason/{response_id}/events") as answer:
        events = live_frames(answer)  # the stream is left when this is collected
        await anext(events)
        await asyncio.sleep(GRACE_S * 2)
        assert await status(live, response_id) != "cancelled"
    left_at = asyncio.get_running_loop().time()
    await until(lambda: runner.num_working == 0)
    assert asyncio.get_running_loop().time() - left_at > GRACE_S * 0.8
    assert await status(live, response_id) == "cancelled"


async def test_a_gateway_that_dies_is_believed_for_a_while_only(
    live: httpx.AsyncClient,
    second: httpx.AsyncClient,
    second_app: FastAPI,
    runner: ScriptedRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disconnect, "BELIEVED_S", 1.0)
    runner.pause()
    response_id = await start_and_leave(live)
    async with second.stream("GET", f"/v1/reason/{response_id}/events") as answer:
        await anext(live_frames(answer))
        second_app.state.gateway.readers.leave = lambda *_, **__: None  # it is gone, and says nothing more
    await asyncio.sleep(GRACE_S * 2)
    assert await status(live, response_id) != "cancelled"
    await until(lambda: runner.num_working == 0)
    assert await status(live, response_id) == "cancelled"


async def test_a_waiting_client_that_leaves_does_not_end_what_the_other_gateway_sends(
    live: httpx.AsyncClient, second: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.pause()
    waiting = asyncio.create_task(live.post("/v1/reason", json={"question": "?"}))
    await until(lambda: runner.num_working == 1)
    async with second.stream("GET", f"/v1/reason/{runner.jobs[0].response_id}/events") as answer:
        events = live_frames(answer)
        await anext(events)
        waiting.cancel()
        await asyncio.sleep(GRACE_S * 2)
        runner.resume()
        assert [event.event async for event in events][-1] == "response.completed"
