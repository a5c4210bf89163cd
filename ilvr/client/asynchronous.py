"""The client for code on an event loop. ``blocking.py`` is the same without one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Literal, Self, Unpack, overload

import httpx

from contracts.events import Event, Terminal
from contracts.jobs import ImageRef
from contracts.responses import Response
from ilvr.client import request as requests
from ilvr.client.answers import image_of, models_of, response_of
from ilvr.client.exchange import Call, HttpAnswer, HttpRequest, Reasoning
from ilvr.client.pictures import Picture, PictureFile
from ilvr.client.request import Options
from ilvr.client.retries import Patience
from ilvr.client.transport import CANCEL_TIMEOUT_S, READ_TIMEOUT_S, arguments, heard, settings


class AsyncClient:
    """``async with AsyncClient() as client: await client.reason(["maze.png"], "Find a safe path from S to G.")``.

    A full or unready server (429, 503), a proxy whose servers are away (502, 504) and a broken connection are tried
    again, ``max_retries`` times in a row, each after as long as the server asks for, if that is no more than
    ``max_wait_s``. A server cancels what nobody has read for some seconds (``ILVR_SERVICE_DISCONNECT_GRACE_S``): a
    stream that comes back later than that ends as cancelled.

    Errors are those of ``contracts.errors``, or ``ConnectionFailed``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        max_retries: int = 5,
        max_wait_s: float = 60.0,
        read_timeout_s: float = READ_TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """What is None is asked of the environment: ``ILVR_URL``, else the default port here, and ``ILVR_API_KEY``.

        Raises ``InvalidRequest``: the URL is none.
        """
        self._http = httpx.AsyncClient(transport=transport, **settings(url, api_key, read_timeout_s))
        self._patience = Patience(max_retries, max_wait_s)

    @overload
    async def reason(
        self, images: Iterable[Picture], question: str, *, stream: Literal[False] = False, **options: Unpack[Options]
    ) -> Response: ...

    @overload
    async def reason(
        self, images: Iterable[Picture], question: str, *, stream: Literal[True], **options: Unpack[Options]
    ) -> "AsyncEvents": ...

    async def reason(
        self, images: Iterable[Picture], question: str, *, stream: bool = False, **options: Unpack[Options]
    ) -> "Response | AsyncEvents":
        """Ask about pictures: the response object when it has ended or, with ``stream=True``, its events.

        A response that failed or was cancelled is raised as its error; in a stream, ``async with await client.reason(…,
        stream=True)``, it is the last event.
        """
        body = await asyncio.to_thread(requests.question_body, images, question, options)  # it reads files
        events = AsyncEvents(self._http, Reasoning(body, patience=self._patience))
        if stream:
            return events
        async with events:
            return await events.finished()

    async def submit(self, images: Iterable[Picture], question: str, **options: Unpack[Options]) -> Response:
        """Ask in the background: at once the response object, queued. :meth:`follow` or :meth:`get` it by its id."""
        return response_of(await self._call(await asyncio.to_thread(requests.background, images, question, options)))

    def follow(self, response_id: str, *, starting_after: int = -1) -> "AsyncEvents":
        """The events of a response after a sequence number, those to come included. Leaving them cancels nothing."""
        reasoning = Reasoning.resumed(response_id, starting_after=starting_after, patience=self._patience)
        return AsyncEvents(self._http, reasoning, cancels=False)

    async def get(self, response_id: str) -> Response:
        """The response object as far as it has come."""
        return response_of(await self._call(requests.response(response_id)))

    async def cancel(self, response_id: str) -> Response:
        """End it; what came of it so far."""
        return response_of(await self._call(requests.cancel(response_id)))

    async def upload(self, picture: PictureFile) -> ImageRef:
        """Send a picture once, for any number of questions."""
        return image_of(await self._call(await asyncio.to_thread(requests.upload, picture)))

    async def models(self) -> list[dict[str, Any]]:
        """What is served: of each its ``id``, its ``latent_size`` and more."""
        return models_of(await self._call(requests.MODELS))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _call(self, request: HttpRequest) -> HttpAnswer:
        call = Call(request, patience=self._patience)
        while True:
            try:
                got = await self._http.request(**arguments(request))
                answer = heard(got, got.content)
                wait_s = call.answered(answer)
            except httpx.TransportError as error:
                wait_s = call.broke(str(self._http.base_url), error)
            else:
                if wait_s is None:
                    return answer
            await asyncio.sleep(wait_s)


class AsyncEvents:
    """The typed events of one response, in order and without a gap, also over broken connections.

    An iterator, to be used once. Leaving its ``with`` block before the end cancels the response.
    """

    def __init__(self, http: httpx.AsyncClient, reasoning: Reasoning, *, cancels: bool = True) -> None:
        self._http = http
        self._reasoning = reasoning
        self._cancels = cancels
        self._events = self._run()

    @property
    def response_id(self) -> str | None:
        """None before the first event."""
        return self._reasoning.response_id

    @property
    def end(self) -> Terminal:
        """The last event. Only after it was iterated over."""
        return self._reasoning.terminal()

    @property
    def response(self) -> Response:
        """The response object of the last event. Raises the error of a failed response, and ``ResponseCancelled``."""
        return self._reasoning.response()

    async def finished(self) -> Response:
        """:attr:`response`, after all events that are left."""
        async for _ in self:
            pass
        return self.response

    async def aclose(self) -> None:
        """End the connection, and the response if it is not over."""
        await self._events.aclose()
        if self._cancels and self._reasoning.end is None and self.response_id is not None:
            # If nobody hears it, the server notices by itself that nobody reads.
            with suppress(httpx.HTTPError):
                await self._http.request(**arguments(requests.cancel(self.response_id)), timeout=CANCEL_TIMEOUT_S)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self) -> AsyncGenerator[Event, None]:
        reasoning, url = self._reasoning, str(self._http.base_url)
        while True:
            error: httpx.TransportError | None = None
            try:
                async with self._http.stream(**arguments(reasoning.next_request())) as answer:
                    wait_s = reasoning.opened(heard(answer, b"" if answer.is_success else await answer.aread()))
                    if wait_s is None:
                        async for chunk in answer.aiter_bytes():
                            for event in reasoning.feed(chunk):
                                yield event
                            if reasoning.end is not None:
                                return
                        if reasoning.has_nothing_left:
                            return
            except httpx.TransportError as broken:
                error, wait_s = broken, None
            await asyncio.sleep(reasoning.broke(url, error) if wait_s is None else wait_s)
