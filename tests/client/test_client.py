"""What both clients do when all goes well, and when it does not."""

import base64
import time
from email.utils import formatdate
from pathlib import Path

import httpx
import msgspec
import pytest
from PIL import Image

import ilvr
from contracts import errors as e
from contracts.events import Cancelled
from contracts.jobs import ImageRef
from ilvr.client import ConnectionFailed, UnexpectedAnswer
from tests.client.conftest import EVENTS, FAILED, RESPONSE, Driver, Server, error, stream


def test_the_answer(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS)]
    assert driver.reason(seed=7, latent="off", max_tokens=None) == RESPONSE
    (body,) = server.bodies()
    image = {"type": "base64", "data": base64.b64encode(b"png").decode()}
    asked = {"question": "Where?", "images": [image], "seed": 7, "latent": {"mode": "off"}, "stream": True}
    assert body == asked
    assert len(server.asked) == 1


def test_a_question_that_continues_a_response(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS)]
    assert driver.reason(previous_response_id="resp_before") == RESPONSE
    assert server.bodies()[0]["previous_response_id"] == "resp_before"


def test_the_events(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS)]
    assert driver.events() == list(EVENTS)
    assert len(server.asked) == 1  # over: nothing to cancel


def test_a_broken_stream_goes_on_where_it_was(driver: Driver, server: Server, slept: list[float]) -> None:
    server.answers = [stream(*EVENTS[:2], breaks=True), httpx.ConnectError("refused"), stream(*EVENTS[1:])]
    assert driver.events() == list(EVENTS)
    post, *resumed = server.asked
    assert post.headers["idempotency-key"]
    assert [str(request.url) for request in resumed] == ["http://test/v1/reason/resp_1/events?starting_after=1"] * 2
    assert len(slept) == 2


def test_a_stream_that_ends_too_soon_is_a_broken_one(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS[:3]), stream(EVENTS[3])]
    assert driver.events() == list(EVENTS)


def test_a_question_that_may_have_been_lost_is_sent_with_the_same_key(driver: Driver, server: Server) -> None:
    server.answers = [httpx.ReadError("reset"), stream(breaks=True), stream(*EVENTS)]
    assert driver.reason() == RESPONSE
    assert len({request.headers["idempotency-key"] for request in server.asked}) == 1
    assert {request.method for request in server.asked} == {"POST"}


def test_two_questions_have_two_keys(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS), stream(*EVENTS)]
    driver.reason()
    driver.reason()
    assert len({request.headers["idempotency-key"] for request in server.asked}) == 2


def test_a_server_without_room_is_waited_for_as_it_says(driver: Driver, server: Server, slept: list[float]) -> None:
    server.answers = [error(429, "overloaded", Retry_After="7"), error(503, "not_ready"), stream(*EVENTS)]
    assert driver.reason() == RESPONSE
    assert slept[0] == 7
    assert slept[1] >= e.NotReady.default_retry_after_s


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_proxy_whose_servers_are_away_is_asked_again(
    status: int, driver: Driver, server: Server, slept: list[float]
) -> None:
    soon = formatdate(time.time() + 20, usegmt=True)
    server.answers += [
        httpx.Response(status, text="<html>No server is available</html>", headers={"Retry-After": "7"}),
        httpx.Response(status, headers={"Retry-After": soon}),
        stream(*EVENTS),
    ]
    assert driver.reason() == RESPONSE
    assert slept[0] == 7.0
    assert 15.0 < slept[1] < 21.0


def test_a_response_that_somebody_cancelled_is_no_answer(driver: Driver, server: Server) -> None:
    cancelled = msgspec.structs.replace(RESPONSE, status="cancelled", answer=None)
    server.answers.append(stream(*EVENTS[:3], Cancelled(sequence_number=3, response_id="resp_1", response=cancelled)))
    with pytest.raises(e.ResponseCancelled, match="resp_1"):
        driver.reason()


def test_nothing_comes_after_the_last_event(driver: Driver, server: Server) -> None:
    server.answers.append(httpx.Response(204))
    assert driver.followed("resp_1", 3) == []
    server.answers.append(httpx.Response(204))
    with pytest.raises(RuntimeError, match=r"get\('resp_1'\)"):
        driver.finished("resp_1", 3)


def test_waiting_has_an_end(driver: Driver, server: Server, slept: list[float]) -> None:
    server.answers = [error(429, "rate_limited", Retry_After="2")] * 9
    with pytest.raises(e.RateLimited, match="rate_limited"):
        driver.reason()
    assert len(server.asked) == 6
    assert len(slept) == 5


def test_a_server_that_is_not_there(driver: Driver, server: Server, slept: list[float]) -> None:
    server.answers = [httpx.ConnectError("refused")] * 9
    with pytest.raises(ConnectionFailed, match=r"http://test.*refused"):
        driver.reason()
    assert len(server.asked) == 6
    for number, seconds in enumerate(slept):  # twice as long each time, and not all clients at the same moment
        assert 0.125 * 2**number <= seconds <= 0.25 * 2**number
    assert len(set(slept)) == 5


def test_what_is_wrong_is_not_sent_again(driver: Driver, server: Server) -> None:
    server.answers = [error(422, "invalid_request")]
    with pytest.raises(e.InvalidRequest):
        driver.reason()
    server.answers = [httpx.Response(404, text="<html>")]
    with pytest.raises(UnexpectedAnswer, match=r"404.*is that an ilvr server"):
        driver.reason()
    assert len(server.asked) == 2


def test_a_response_that_is_gone_is_said(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS[:2], breaks=True), error(404, "response_not_found")]
    with pytest.raises(e.ResponseNotFound):
        driver.reason()


def test_a_failed_response(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS[:3], FAILED)]
    assert driver.events()[-1] == FAILED
    server.answers = [stream(*EVENTS[:3], FAILED)]
    with pytest.raises(e.EngineDead, match="It died"):
        driver.reason()


def test_a_missing_event_is_noticed(driver: Driver, server: Server) -> None:
    server.answers = [stream(EVENTS[0], *EVENTS[2:])]
    with pytest.raises(UnexpectedAnswer, match="2 came after 0"):
        driver.events()


def test_leaving_the_block_cancels(driver: Driver, server: Server) -> None:
    server.answers = [stream(*EVENTS)]
    assert driver.events(take=2) == list(EVENTS[:2])
    assert [request.url.path for request in server.asked] == ["/v1/reason", "/v1/reason/resp_1/cancel"]


def test_in_the_background(driver: Driver, server: Server) -> None:
    queued = {"id": "resp_1", "created_at": 1, "model": "m", "status": "queued"}
    server.answers = [error(503, "not_ready"), httpx.Response(200, json=queued)]
    assert driver.call("submit", [], "Where?").status == "queued"
    assert [body["background"] for body in server.bodies()] == [True, True]
    assert len({request.headers["idempotency-key"] for request in server.asked}) == 1
    assert driver.call("cancel", "resp_1").status == "cancelled"


def test_the_other_calls(driver: Driver, server: Server) -> None:
    ref = ImageRef(id="img_1", width=3, height=2)
    server.answers = [httpx.Response(200, json={"id": "img_1", "width": 3, "height": 2}), stream(*EVENTS)]
    assert driver.call("upload", b"png") == ref
    assert driver.call("reason", [ref, "https://host/x.png"], "Where?") == RESPONSE
    inputs = [{"type": "ref", "id": "img_1"}, {"type": "url", "url": "https://host/x.png"}]
    assert server.bodies()[-1]["images"] == inputs
    server.answers = [httpx.Response(200, json={"data": [{"id": "m"}]}), httpx.Response(200, json={"object": "list"})]
    assert driver.call("models") == [{"id": "m"}]
    with pytest.raises(UnexpectedAnswer, match="is that an ilvr server"):
        driver.call("models")


def test_pictures_of_every_kind(driver: Driver, server: Server, tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 3))
    path = tmp_path / "a.png"
    picture.save(path)
    server.answers = [stream(*EVENTS)]
    driver.call("reason", [path, str(path), picture], "Where?")
    (body,) = server.bodies()
    files = [base64.b64decode(image["data"]) for image in body["images"]]
    assert files == [path.read_bytes()] * 3


@pytest.mark.parametrize(
    ("images", "words"), [("maze.png", "a list"), (["no such file"], "No such file"), ([3], "is no picture")]
)
def test_what_is_no_picture(images: object, words: str, driver: Driver) -> None:
    with pytest.raises(e.InvalidRequest, match=words):
        driver.call("reason", images, "Where?")


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "ftp://x", "http://[::1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(e.InvalidRequest):
        ilvr.Client(url)


def test_the_key(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("ILVR_API_KEY", "from-the-environment")
    for given, sent in [("mine", "Bearer mine"), (None, "Bearer from-the-environment"), ("", None)]:
        server.answers = [httpx.Response(200, json={"data": []})]
        with ilvr.Client("http://test", api_key=given, transport=httpx.MockTransport(server.handle)) as client:
            client.models()
        assert server.asked[-1].headers.get("authorization") == sent


def test_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    for variable, host in [("http://there:9", "there"), (None, "127.0.0.1")]:
        monkeypatch.delenv("ILVR_URL", raising=False)
        if variable:
            monkeypatch.setenv("ILVR_URL", variable)
        server.answers = [httpx.Response(200, json={"data": []})]
        with ilvr.Client(transport=httpx.MockTransport(server.handle)) as client:
            client.models()
        assert server.asked[-1].url.host == host
