"""Every error has a status and a code of its own, and one shape."""

from collections.abc import Iterator

import httpx
import pytest

from contracts import errors as e
from service.errors import ERROR_BY_CODE, STATUS_BY_ERROR
from tests.scripted_runner import ScriptedRunner
from tests.service.helpers import check_error, frames

ASK = {"question": "?"}


def leaves(cls: type[e.IlvrError]) -> Iterator[type[e.IlvrError]]:
    subclasses = cls.__subclasses__()
    if not subclasses:
        yield cls
    for sub in subclasses:
        yield from leaves(sub)


def test_every_error_has_a_status_and_a_code_of_its_own() -> None:
    found = {error for error in leaves(e.IlvrError) if error.__module__ == e.__name__} - set(leaves(e.StartError))
    assert found == set(STATUS_BY_ERROR)
    assert len(ERROR_BY_CODE) == len(found)


# As design documents state them, not read from the table.
EXPECTED = {
    "malformed_body": (400, "invalid_request_error"),
    "invalid_request": (422, "invalid_request_error"),
    "not_supported_yet": (422, "invalid_request_error"),
    "prompt_too_long": (413, "invalid_request_error"),
    "body_too_large": (413, "invalid_request_error"),
    "body_too_slow": (408, "invalid_request_error"),
    "image_too_large": (413, "invalid_request_error"),
    "not_an_image": (415, "invalid_request_error"),
    "image_not_found": (404, "invalid_request_error"),
    "model_not_found": (404, "invalid_request_error"),
    "response_not_found": (404, "invalid_request_error"),
    "response_not_finished": (409, "invalid_request_error"),
    "idempotency_conflict": (409, "invalid_request_error"),
    "response_cancelled": (400, "invalid_request_error"),
    "not_authenticated": (401, "invalid_request_error"),
    "not_permitted": (403, "invalid_request_error"),
    "url_not_allowed": (403, "invalid_request_error"),
    "url_not_fetched": (422, "invalid_request_error"),
    "overloaded": (429, "overloaded_error"),
    "rate_limited": (429, "overloaded_error"),
    "broker_unavailable": (503, "overloaded_error"),
    "not_ready": (503, "overloaded_error"),
    "deadline_exceeded": (504, "server_error"),
    "generation_failed": (500, "server_error"),
    "image_lost": (503, "server_error"),
    "engine_dead": (503, "server_error"),
}


@pytest.mark.parametrize("error", ERROR_BY_CODE.values(), ids=ERROR_BY_CODE)
async def test_a_failure_before_the_first_byte_is_a_status(
    error: type[e.IlvrError], client: httpx.AsyncClient, runner: ScriptedRunner
) -> None:
    runner.fail_with = error("It broke.")
    answer = await client.post("/v1/reason", json=ASK)
    status, kind = EXPECTED[error.code]
    assert check_error(answer, status, error.code) == "It broke."
    assert answer.json()["error"]["type"] == kind
    assert ("retry-after" in answer.headers) == (status in (429, 503) and error not in (e.Overloaded, e.RateLimited))


async def test_a_failure_in_a_stream_is_its_last_event(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.fail_with = e.GenerationFailed("It broke.")
    answer = await client.post("/v1/reason", json={**ASK, "stream": True})
    assert answer.status_code == 200
    last = frames(answer.text)[-1]
    assert last.event == "response.failed"
    assert last.data["error"] == {"code": "generation_failed", "message": "It broke.", "retryable": True}
    assert last.data["response"]["status"] == "failed"
    assert len(last.data["response"]["steps"]) == 3


async def test_an_unknown_route_and_a_wrong_method(client: httpx.AsyncClient) -> None:
    assert "/docs" in check_error(await client.get("/v1/nothing"), 404, "not_found")
    check_error(await client.post("/v1/completions", json={}), 404, "not_found")
    answer = await client.delete("/v1/reason")
    check_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["", "/events", "/cancel"])
async def test_an_unknown_response(path: str, client: httpx.AsyncClient) -> None:
    method = "POST" if path == "/cancel" else "GET"
    answer = await client.request(method, f"/v1/reason/resp_none{path}")
    assert "resp_none" in check_error(answer, 404, "response_not_found")


async def test_a_defect_tells_the_client_nothing_of_the_code(
    client: httpx.AsyncClient, runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("secret path /home/x")

    monkeypatch.setattr("service.routes.reason.read_reason_body", broken)
    answer = await client.post("/v1/reason", json=ASK, headers={"X-Request-Id": "mine"})
    check_error(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("abc-1.2:3/x@y", True), ("", False), ("a b", False), ("x" * 129, False), ('"quoted"', False)],
)
async def test_a_sane_request_id_is_honoured(given: str, is_kept: bool, client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nowhere"):
        answer = await client.get(path, headers={"X-Request-Id": given})
        assert (answer.headers["x-request-id"] == given) == is_kept
        assert answer.headers["x-request-id"]
