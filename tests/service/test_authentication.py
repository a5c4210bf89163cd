"""Who may do what, over HTTP."""

import asyncio
import gc
import json
import re
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from broker.embedded import EmbeddedBroker
from service.access import METRICS, OPEN, PAGES, SCOPE_BY_PREFIX, access_to
from service.app import create_app
from service.key_source import LOOK_INTERVAL_S
from service.keys import new_token
from service.settings import ServiceSettings
from tests.scripted_runner import ScriptedRunner
from tests.service.api_keys import Keys
from tests.service.helpers import base64_image, check_error, picture

ASK = {"question": "?"}


@pytest.fixture
def keys() -> Keys:
    keys = Keys()
    keys.add("both")
    keys.add("asks", "reason")
    keys.add("uploads", "images")
    keys.add("admin", "admin")
    keys.add("slow", "reason", "images", rate_per_minute=1, burst=3)
    keys.add("quick", "reason", "images", rate_per_minute=1200, burst=1)
    return keys


@pytest.fixture
def settings(settings: ServiceSettings, keys: Keys) -> ServiceSettings:
    return settings.model_copy(update={"api_keys": keys.setting})


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


async def test_without_a_right_key_nothing_is_done(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    token = keys.tokens["both"]
    wrong = [
        {},
        {"Authorization": f"Bearer {new_token()}"},
        {"Authorization": f"Bearer {token}x"},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": ""},
        {"Authorization": f"Bearer {new_token()}", "X-API-Key": token},  # a wrong one is not passed over
        {"X-API-Key": new_token()},
        {"X-API-Key": f"Bearer {token}"},
        {"Cookie": f"Authorization={token}"},
        {"Authorization": "Bearer " + "a" * 10_000},
        {"Authorization": "Bearer \xff\xfe"},
    ]
    for headers in wrong:
        raw = [(name, value.encode("latin-1")) for name, value in headers.items()]
        for method, path in (("POST", "/v1/reason"), ("GET", "/v1/models"), ("GET", f"/v1/models?api_key={token}")):
            answer = await client.request(method, path, json=ASK, headers=raw)
            check_error(answer, 401, "not_authenticated")
            assert answer.headers["www-authenticate"] == 'Bearer realm="ilvr"'
    assert runner.jobs == []


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "authorization: bearer  {}", "X-API-Key: {}"])
async def test_a_right_key_is_taken_in_two_headers(
    header: str, client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    name, _, value = header.format(keys.tokens["asks"]).partition(": ")
    answer = await client.post("/v1/reason", json=ASK, headers={name: value})
    assert answer.status_code == 200


async def test_each_scope_opens_its_routes_and_no_other(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    routes = {
        ("POST", "/v1/reason"): "reason",
        ("GET", "/v1/reason/resp_x"): "reason",
        ("GET", "/v1/reason/resp_x/events"): "reason",
        ("POST", "/v1/reason/resp_x/cancel"): "reason",
        ("POST", "/v1/chat/completions"): "reason",
        ("POST", "/v1/responses"): "reason",
        ("POST", "/v1/images"): "images",
        ("GET", "/v1/models"): None,
        ("GET", "/v1/models/scripted"): None,
    }
    scopes = {"asks": {"reason"}, "uploads": {"images"}, "admin": {"admin"}, "both": {"reason", "images"}}
    for (method, path), scope in routes.items():
        for name, has in scopes.items():
            answer = await client.request(method, path, headers=keys.headers(name))
            if scope is None or scope in has:
                assert answer.status_code not in (401, 403), (name, method, path)
            else:
                check_error(answer, 403, "not_permitted")


async def test_pictures_in_a_question_need_no_scope_of_their_own(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    ask = {**ASK, "images": [base64_image(picture())]}
    assert (await client.post("/v1/reason", json=ask, headers=keys.headers("asks"))).status_code == 200


async def test_what_needs_no_key_needs_no_key(client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys) -> None:
    for path in sorted(OPEN | METRICS | PAGES - {"/docs/oauth2-redirect"}):
        for headers in ({}, {"Authorization": "Bearer wrong"}, keys.headers("asks")):
            assert (await client.get(path, headers=headers)).status_code == 200, path


async def test_without_a_key_nothing_is_told_of_the_runners(
    client: httpx.AsyncClient, broker: EmbeddedBroker, keys: Keys
) -> None:
    inside = ScriptedRunner(broker, runner_id="host-7")
    inside.is_ready, inside.detail = False, "no file /models/secret"
    await inside.beat()
    answers = [await client.get("/readyz"), await client.get("/version")]
    answers += [await client.get("/readyz", headers={"Authorization": "Bearer wrong"})]
    check_error(answers[0], 503, "not_ready")
    inside.is_ready = True
    await inside.beat()
    answers += [await client.get("/readyz"), await client.get("/healthz")]
    assert answers[3].json() == {"status": "ready"}
    for answer in answers:
        assert "host-7" not in answer.text
        assert "secret" not in answer.text
        assert "scripted" not in answer.text
    assert (await client.get("/readyz", headers=keys.headers("asks"))).json()["runners"] == ["host-7"]
    assert "host-7" in (await client.get("/version", headers=keys.headers("asks"))).text


async def test_what_is_not_there_needs_a_key_too(client: httpx.AsyncClient, keys: Keys) -> None:
    for path in ("/v2", "/v1", "/v1/reasons", "/metrics/x", "/healthz/", "/healthz%3F/x", "/docs/x"):
        check_error(await client.get(path), 401, "not_authenticated")
    check_error(await client.get("/v2", headers=keys.headers("asks")), 404, "not_found")


@pytest.mark.parametrize("host", ["gateway/healthz?", "gateway/healthz#", "gateway", "healthz"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models?/healthz", "/v1/models#/healthz", "/v1/./models"])
async def test_what_a_request_says_of_its_host_opens_nothing(host: str, path: str, client: httpx.AsyncClient) -> None:
    check_error(await client.get(path, headers={"Host": host}), 401, "not_authenticated")


async def test_every_route_is_known_to_the_table(app: FastAPI, settings: ServiceSettings) -> None:
    """A new route is closed until somebody says who it is for; this says to do so."""
    known = OPEN | METRICS | PAGES | {"/v1/models", "/v1/models/{model:path}"}
    for route in app.routes:
        assert isinstance(route, Route)
        is_scoped = any(route.path == prefix or route.path.startswith(f"{prefix}/") for prefix in SCOPE_BY_PREFIX)
        assert route.path in known or is_scoped, route.path
    assert not access_to("GET", "/something/new", settings).is_open


class TestAdmin:
    @pytest.fixture
    def settings(self, settings: ServiceSettings) -> ServiceSettings:
        return settings.model_copy(update={"metrics_need_key": True, "docs_need_key": True})

    async def test_metrics_and_pages_behind_a_key(self, client: httpx.AsyncClient, keys: Keys) -> None:
        for path in sorted(METRICS | PAGES):
            check_error(await client.get(path), 401, "not_authenticated")
            check_error(await client.get(path, headers=keys.headers("both")), 403, "not_permitted")
            assert (await client.get(path, headers=keys.headers("admin"))).status_code == 200, path
        for path in sorted(OPEN - {"/readyz"}):
            assert (await client.get(path)).status_code == 200


async def test_a_body_without_a_key_is_not_read(client: httpx.AsyncClient) -> None:
    num_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_read
        num_read += 1
        yield b"x"

    check_error(await client.post("/v1/images", content=body()), 401, "not_authenticated")
    assert num_read == 0


async def test_a_rate_is_of_one_key_and_counts_questions_and_uploads(
    client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
) -> None:
    slow = keys.headers("slow")
    for _ in range(10):  # these are free
        await client.get("/v1/models", headers=slow)
        await client.get("/v1/reason/resp_x", headers=slow)
        await client.post("/v1/reason/resp_x/cancel", headers=slow)
    assert (await client.post("/v1/reason", json=ASK, headers=slow)).status_code == 200
    assert (await client.post("/v1/images", content=picture(), headers=slow)).status_code == 200
    assert (await client.post("/v1/reason", json={}, headers=slow)).status_code == 422  # a refused one counts too
    for _ in range(3):
        answer = await client.post("/v1/reason", json=ASK, headers=slow)
        check_error(answer, 429, "rate_limited")
        assert 50 <= int(answer.headers["retry-after"]) <= 60  # one a minute
    assert (await client.get("/v1/models", headers=slow)).status_code == 200
    assert (await client.post("/v1/reason", json=ASK, headers=keys.headers("both"))).status_code == 200
    assert len(runner.jobs) == 2


async def test_a_rate_limit_ends(client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys) -> None:
    quick = keys.headers("quick")  # 20 a second, one at a time
    statuses = [(await client.post("/v1/images", content=picture(), headers=quick)).status_code for _ in range(2)]
    assert statuses == [200, 429]
    await asyncio.sleep(0.1)
    assert (await client.post("/v1/images", content=picture(), headers=quick)).status_code == 200


async def test_refused_questions_are_counted(client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys) -> None:
    await client.post("/v1/reason", json=ASK)
    await client.post("/v1/reason", json=ASK, headers=keys.headers("admin"))
    for _ in range(4):
        await client.post("/v1/reason", json={}, headers=keys.headers("slow"))
    await client.get("/v1/reason/resp_x")  # no question
    counted = re.findall(
        r'^ilvr_gateway_rejects_total\{reason="(\w+)"\} (\S+)$', (await client.get("/metrics")).text, re.M
    )
    expected = {"not_authenticated": 1, "not_permitted": 1, "invalid_request": 3, "rate_limited": 1}
    assert {outcome: float(number) for outcome, number in counted} == expected


async def test_wrong_keys_leave_nothing_behind(
    app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Through the app itself: an HTTP client would keep more of them than the gateway does."""
    caplog.set_level("WARNING", logger="ilvr.access")  # pytest keeps every line
    app_scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/reason",
        "raw_path": b"/v1/reason",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    statuses = set()

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    async def receive() -> dict[str, object]:
        raise AssertionError("the body was asked for")

    async def try_keys(count: int) -> None:
        for number in range(count):
            headers = [(b"authorization", b"Bearer " + str(number).encode() * 20), (b"x-request-id", b"%d" % number)]
            await app({**app_scope, "headers": headers}, receive, send)  # type: ignore[arg-type]

    await try_keys(200)  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        await try_keys(3000)
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert statuses == {401}
    assert left < 100_000  # 3,000 keys of this length alone would be more


async def test_a_key_added_to_the_file_is_good_and_one_taken_out_is_not(
    broker: EmbeddedBroker, settings: ServiceSettings, runner: ScriptedRunner, keys: Keys, tmp_path_factory
) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    entries = json.loads(keys.setting)
    path.write_text(json.dumps({"asks": entries["asks"]}))
    update = {"api_keys": None, "api_keys_file": path}
    app = create_app(broker, settings.model_copy(update=update), CollectorRegistry())
    async with client_of(app) as client:
        assert (await client.get("/v1/models", headers=keys.headers("asks"))).status_code == 200
        check_error(await client.get("/v1/models", headers=keys.headers("both")), 401, "not_authenticated")
        path.write_text(json.dumps({"both": entries["both"]}))
        await asyncio.sleep(LOOK_INTERVAL_S)
        check_error(await client.get("/v1/models", headers=keys.headers("asks")), 401, "not_authenticated")
        assert (await client.get("/v1/models", headers=keys.headers("both"))).status_code == 200
    await app.state.gateway.aclose()


class TestOff:
    @pytest.fixture
    def settings(self, settings: ServiceSettings) -> ServiceSettings:
        return settings.model_copy(update={"api_keys": None})

    async def test_where_keys_are_off_every_request_has_the_same_caller(
        self, app: FastAPI, client: httpx.AsyncClient, runner: ScriptedRunner, keys: Keys
    ) -> None:
        callers = []

        @app.get("/caller")
        async def caller(request: Request) -> None:
            callers.append(request.state.caller)

        for headers in ({}, keys.headers("asks"), {"Authorization": "Bearer wrong"}):
            assert (await client.get("/caller", headers=headers)).status_code == 200
        (only,) = set(callers)
        assert (only.owner, only.scopes, only.rate_limit, only.max_open) == (
            "",
            {"reason", "images", "admin"},
            None,
            None,
        )
        await client.post("/v1/reason", json=ASK, headers=keys.headers("asks"))
        assert runner.jobs[0].owner == ""
