"""A response, its events and its images are there for the key that made them, and for no other."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from broker.open import open_broker
from broker.settings import BrokerSettings
from contracts.broker import Broker
from service.app import create_app
from service.keys import hash_of
from service.settings import ServiceSettings
from tests.broker.redis_server import RedisServer, fresh_prefix
from tests.scripted_runner import ANSWER, ScriptedRunner
from tests.service.api_keys import Keys
from tests.service.conftest import until
from tests.service.helpers import base64_image, check_error, frames, picture

ASK = {"question": "?"}
# Whose request it was not: another tenant, one who may see how the server does, and the first key's successor.
OTHERS = ["other", "operator", "renewed"]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    settings = BrokerSettings()
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        settings = BrokerSettings(redis_url=server.url, key_prefix=fresh_prefix())
    broker = await open_broker(settings)
    yield broker
    await broker.aclose()


@pytest.fixture
def keys() -> Keys:
    keys = Keys()
    keys.add("mine")
    keys.add("other")
    keys.add("operator", "reason", "images", "admin")
    keys.add("renewed")
    keys.add("few", max_open=1)
    return keys


@pytest.fixture
def settings(settings: ServiceSettings, keys: Keys) -> ServiceSettings:
    return settings.model_copy(update={"api_keys": keys.setting})


def of(client: httpx.AsyncClient, keys: Keys, name: str) -> httpx.AsyncClient:
    """The same server, with the key of this name sent along."""
    return httpx.AsyncClient(
        transport=client._transport, base_url=client.base_url, headers=keys.headers(name), timeout=20
    )


async def begin(client: httpx.AsyncClient, **fields: object) -> str:
    """A response that goes on in the background; its id."""
    answer = await client.post("/v1/reason", json={**ASK, "background": True, **fields})
    assert answer.status_code == 200, answer.text
    response_id: str = answer.json()["id"]
    return response_id


def same_but_for_ids(answer: httpx.Response) -> tuple[int, str]:
    """What a caller can tell from an answer that says that something is not there."""
    error = dict(answer.json()["error"])
    del error["request_id"]
    words = [word for word in str(error).split() if not word.startswith(("resp_", "img_"))]
    return answer.status_code, " ".join(words)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("is_over", [False, True])
async def test_a_response_of_another_key_is_as_one_that_never_was(
    name: str, is_over: bool, client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    mine, theirs = of(client, keys, "mine"), of(client, keys, name)
    if not is_over:
        runner.pause()
    response_id = await begin(mine)
    await until(lambda: (runner.num_working == 0 and len(runner.jobs) == 1) if is_over else runner.num_working == 1)
    routes = [
        ("GET", "", {}),
        ("GET", "/events", {}),
        ("GET", "/events?starting_after=0", {}),
        ("GET", "/events?starting_after=1000", {}),
        ("GET", "/events", {"Last-Event-ID": "1"}),
        ("POST", "/cancel", {}),
    ]
    for method, path, headers in routes:
        answer = await theirs.request(method, f"/v1/reason/{response_id}{path}", headers=headers)
        check_error(answer, 404, "response_not_found")
        never = await theirs.request(method, f"/v1/reason/resp_{'0' * 32}{path}", headers=headers)
        assert same_but_for_ids(answer) == same_but_for_ids(never)

    status = (await mine.get(f"/v1/reason/{response_id}")).json()["status"]
    assert status == ("completed" if is_over else "queued")
    runner.resume()
    events = frames((await mine.get(f"/v1/reason/{response_id}/events")).text)
    assert events[-1].event == "response.completed"  # nobody has cancelled it
    assert (await mine.post(f"/v1/reason/{response_id}/cancel")).json()["answer"] == ANSWER


async def test_no_key_at_all_sees_no_response(client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys) -> None:
    response_id = await begin(of(client, keys, "mine"))
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        check_error(await client.request(method, f"/v1/reason/{response_id}{path}"), 401, "not_authenticated")


async def test_a_stream_that_a_key_began_is_not_resumed_by_another(
    live: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    """On a socket, while it runs."""
    runner.pause()
    async with live.stream("POST", "/v1/reason", json={**ASK, "stream": True}, headers=keys.headers("mine")) as answer:
        await until(lambda: runner.num_working == 1)
        response_id = runner.jobs[0].response_id
        theirs = await live.get(f"/v1/reason/{response_id}/events", headers=keys.headers("other"))
        check_error(theirs, 404, "response_not_found")
        assert answer.status_code == 200
    runner.resume()
    found = await live.get(f"/v1/reason/{response_id}", headers=keys.headers("mine"))
    assert found.status_code == 200


@pytest.mark.parametrize("name", OTHERS)
async def test_an_image_of_another_key_is_as_one_that_never_was(
    name: str, client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    """Its id is the hash of the file: who has the file can make the id, and must not learn that somebody sent it."""
    mine, theirs = of(client, keys, "mine"), of(client, keys, name)
    uploaded, inline = picture(), picture(5, 4)
    image_id = (await mine.post("/v1/images", content=uploaded)).json()["id"]
    assert image_id == f"img_{hashlib.sha256(uploaded).hexdigest()}"
    await begin(mine, images=[base64_image(inline)])

    for file in (uploaded, inline):
        ref = {"type": "ref", "id": f"img_{hashlib.sha256(file).hexdigest()}"}
        answer = await theirs.post("/v1/reason", json={**ASK, "images": [ref]})
        check_error(answer, 404, "image_not_found", "images.0.id")
        never = {"type": "ref", "id": "img_" + "0" * 64}
        other = await theirs.post("/v1/reason", json={**ASK, "images": [never]})
        assert same_but_for_ids(answer) == same_but_for_ids(other)
        assert (await mine.post("/v1/reason", json={**ASK, "images": [ref]})).status_code == 200

    own = (await theirs.post("/v1/images", content=uploaded)).json()["id"]
    assert own == image_id
    ref = {"type": "ref", "id": own}
    assert (await theirs.post("/v1/reason", json={**ASK, "images": [ref]})).status_code == 200


async def test_an_idempotency_key_is_of_one_api_key(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    mine, theirs = of(client, keys, "mine"), of(client, keys, "other")
    header = {"Idempotency-Key": "order-7"}
    first = (await mine.post("/v1/reason", json=ASK, headers=header)).json()["id"]
    assert (await mine.post("/v1/reason", json=ASK, headers=header)).json()["id"] == first
    second = await theirs.post("/v1/reason", json=ASK, headers=header)
    assert second.json()["id"] != first
    third = await of(client, keys, "operator").post("/v1/reason", json={"question": "Another?"}, headers=header)
    assert third.status_code == 200  # no conflict with what it cannot know of
    check_error(
        await mine.post("/v1/reason", json={"question": "Another?"}, headers=header), 409, "idempotency_conflict"
    )
    assert len(runner.jobs) == 3


async def test_an_earlier_response_of_another_key_is_no_context(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    response_id = await begin(of(client, keys, "mine"))
    theirs = of(client, keys, "other")
    answers = [
        await theirs.post("/v1/reason", json={**ASK, "previous_response_id": asked})
        for asked in (response_id, "resp_" + "0" * 32)
    ]
    assert all(answer.status_code >= 400 for answer in answers)
    assert same_but_for_ids(answers[0]) == same_but_for_ids(answers[1])


async def test_a_key_has_so_many_open_and_another_has_its_own(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    few, mine = of(client, keys, "few"), of(client, keys, "mine")
    runner.pause()
    response_id = await begin(few)
    answer = await few.post("/v1/reason", json=ASK)
    check_error(answer, 429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1
    await begin(mine)
    await few.post(f"/v1/reason/{response_id}/cancel")
    await begin(few)
    runner.resume()


async def test_neither_answers_nor_events_say_whose_they_are(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    mine = of(client, keys, "mine")
    streamed = await mine.post("/v1/reason", json={**ASK, "stream": True, "images": [base64_image(picture())]})
    response_id = frames(streamed.text)[0].data["response_id"]
    answers = [streamed, await mine.get(f"/v1/reason/{response_id}"), await mine.post("/v1/images", content=picture())]
    assert runner.jobs[0].owner == f"mine.{hash_of(keys.tokens['mine'])[:12]}"
    for answer in answers:
        assert answer.status_code == 200
        assert "mine" not in answer.text
        assert keys.tokens["mine"] not in answer.text
        assert hash_of(keys.tokens["mine"])[:12] not in answer.text


class TestTwoGateways:
    """On one broker, as on Redis: what one of them started, the other guards as well."""

    @pytest.fixture
    async def second(self, broker: Broker, settings: ServiceSettings, is_keyed: bool) -> AsyncIterator[FastAPI]:
        update = {} if is_keyed else {"api_keys": None}
        app = create_app(broker, settings.model_copy(update=update), CollectorRegistry())
        yield app
        await app.state.gateway.aclose()

    @pytest.mark.parametrize("is_keyed", [True, False])
    async def test_one_sees_what_the_other_started_with_the_same_key_only(
        self, is_keyed: bool, second: FastAPI, client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
    ) -> None:
        runner.pause()
        response_id = await begin(of(client, keys, "mine"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(second), base_url="http://second") as there:
            own = await of(there, keys, "mine").get(f"/v1/reason/{response_id}")
            assert own.status_code == (200 if is_keyed else 404)  # where keys are off nobody is anybody
            check_error(await of(there, keys, "other").get(f"/v1/reason/{response_id}"), 404, "response_not_found")
            cancelled = await of(there, keys, "other").post(f"/v1/reason/{response_id}/cancel")
            check_error(cancelled, 404, "response_not_found")
        await asyncio.sleep(0)
        assert runner.num_working == 1
        runner.resume()
