"""Both clients, driven the same way, against a server that is a list of answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from contracts.events import Completed, Created, Event, Failed, StepDelta, encode_event, event_type
from contracts.responses import ErrorInfo, Response
from ilvr.client import AsyncClient, Client

RESPONSE = Response(id="resp_1", created_at=1, model="m", status="completed", answer="RRDD")
EVENTS: tuple[Event, ...] = (
    Created(sequence_number=0, response_id="resp_1", model="m", images=()),
    StepDelta(sequence_number=1, response_id="resp_1", index=0, text="a\u2028b ✓"),
    StepDelta(sequence_number=2, response_id="resp_1", index=0, text="c"),
    Completed(sequence_number=3, response_id="resp_1", response=RESPONSE),
)
FAILED = Failed(
    sequence_number=3,
    response_id="resp_1",
    error=ErrorInfo(code="engine_dead", message="It died.", retryable=True),
    response=Response(id="resp_1", created_at=1, model="m", status="failed"),
)


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Chunks, then the end or the breaking of the connection."""

    def __init__(self, chunks: Sequence[bytes], *, breaks: bool) -> None:
        self._chunks, self._breaks = chunks, breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._breaks:
            raise httpx.ReadError("reset by peer")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def sse(*events: Event) -> bytes:
    return b": ping\n\n" + b"".join(
        b"id: %d\nevent: %s\ndata: %s\n\n" % (e.sequence_number, event_type(e).encode(), encode_event(e))
        for e in events
    )


def stream(*events: Event, breaks: bool = False, chunk: int = 7) -> httpx.Response:
    """A stream of events in chunks that respect neither lines nor characters."""
    data = sse(*events)
    chunks = [data[i : i + chunk] for i in range(0, len(data), chunk)]
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body(chunks, breaks=breaks))


def error(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"error": {"type": "t", "code": code, "message": f"{code}.", "param": None, "request_id": "r"}}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


class Server:
    """``answers`` in order, each an answer or an exception; what was asked is kept."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response | Exception] = []
        self.asked: list[httpx.Request] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.path.endswith("/cancel"):
            return httpx.Response(200, json={"id": "resp_1", "created_at": 1, "model": "m", "status": "cancelled"})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.asked if request.url.path == "/v1/reason"]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the clients would have waited; they do not."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("ilvr.client.blocking.time.sleep", waits.append)
    monkeypatch.setattr("ilvr.client.asynchronous.asyncio.sleep", sleep)
    return waits


class Driver:
    """The calls of the tests, by either client."""

    def __init__(self, server: Server, *, is_async: bool) -> None:
        self._transport, self._is_async = httpx.MockTransport(server.handle), is_async

    def reason(self, **options: Any) -> Response:
        return self._call(lambda client: client.reason([b"png"], "Where?", **options))

    def events(self, take: int | None = None, **options: Any) -> list[Event]:
        """Streamed; the block is left after ``take`` of them."""
        if self._is_async:
            return asyncio.run(self._async_events(take, options))
        with Client("http://test", transport=self._transport) as client:
            got: list[Event] = []
            with client.reason([b"png"], "Where?", stream=True, **options) as events:
                for event in events:
                    got.append(event)
                    if len(got) == take:
                        break
            return got

    async def _async_events(self, take: int | None, options: dict[str, Any]) -> list[Event]:
        async with AsyncClient("http://test", transport=self._transport) as client:
            got: list[Event] = []
            async with await client.reason([b"png"], "Where?", stream=True, **options) as events:
                async for event in events:
                    got.append(event)
                    if len(got) == take:
                        break
            return got

    def followed(self, response_id: str, starting_after: int) -> list[Event]:
        def follow(client: Client) -> list[Event]:
            return list(client.follow(response_id, starting_after=starting_after))

        async def async_follow(client: AsyncClient) -> list[Event]:
            return [event async for event in client.follow(response_id, starting_after=starting_after)]

        found: list[Event] = self._call(async_follow if self._is_async else follow)
        return found

    def finished(self, response_id: str, starting_after: int) -> Any:
        return self._call(lambda client: client.follow(response_id, starting_after=starting_after).finished())

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self._call(lambda client: getattr(client, name)(*arguments, **options))

    def _call(self, what: Callable[[Any], Any]) -> Any:
        if self._is_async:

            async def run() -> Any:
                async with AsyncClient("http://test", transport=self._transport) as client:
                    return await what(client)

            return asyncio.run(run())
        with Client("http://test", transport=self._transport) as client:
            return what(client)


@pytest.fixture(params=["blocking", "async"])
def driver(request: pytest.FixtureRequest, server: Server, slept: list[float]) -> Driver:
    return Driver(server, is_async=request.param == "async")
