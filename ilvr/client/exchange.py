"""What a client says next, given what it has heard: all decisions, no input or output.

A driver sends ``next_request()``, reports what came of it, and sleeps as long as it is told to.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from contracts.errors import IlvrError, ResponseCancelled
from contracts.events import Cancelled, Created, Event, Failed, Terminal
from contracts.responses import Response
from ilvr.client.errors import ConnectionFailed, UnexpectedAnswer, error_of, error_of_answer
from ilvr.client.retries import Patience, Retries
from ilvr.client.sse import EventParser

EVENT_STREAM = "text/event-stream"
NO_CONTENT = 204  # the answer to one who asks for what comes after the last event


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    json: Mapping[str, Any] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def parsed(self) -> object:
        """The JSON of the body; None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def error(self) -> IlvrError:
        return error_of_answer(self.url, self.status, self.parsed(), self.headers.get("retry-after"))


class Call:
    """One request with one answer, sent again while that can help."""

    def __init__(self, request: HttpRequest, *, patience: Patience) -> None:
        self.request = request
        self._retries = Retries(patience)

    def answered(self, answer: HttpAnswer) -> float | None:
        """None if that was it, or the seconds after which to send it again. Raises what the server said."""
        return None if answer.is_success else self._retries.wait_s(answer.error())

    def broke(self, url: str, error: Exception) -> float:
        """The seconds after which to send it again. Raises ``ConnectionFailed``."""
        return self._retries.wait_s(_failure(url, error))


class Reasoning:
    """A question and its stream of events, to the terminal one, over as many connections as it takes.

    The question carries an idempotency key, so that it is answered once however often it has to be sent; once the id of
    the response is known, a new connection asks for the events after the last one heard.
    """

    def __init__(self, body: Mapping[str, Any], *, patience: Patience) -> None:
        self._body = {**body, "stream": True}
        self._key = secrets.token_hex(16)
        self._follow(patience, None, -1)

    @classmethod
    def resumed(cls, response_id: str, *, starting_after: int, patience: Patience) -> "Reasoning":
        """The events of a response that is there already."""
        reasoning = cls.__new__(cls)
        reasoning._follow(patience, response_id, starting_after)
        return reasoning

    def _follow(self, patience: Patience, response_id: str | None, starting_after: int) -> None:
        self._retries = Retries(patience)
        self._parser = EventParser()
        self._last = starting_after
        self.response_id = response_id
        self.end: Terminal | None = None
        self.has_nothing_left = False

    def next_request(self) -> HttpRequest:
        self._parser = EventParser()  # half a line of the last connection is heard again, whole
        headers = {"Accept": EVENT_STREAM}
        if self.response_id is None:
            return HttpRequest("POST", "/v1/reason", json=self._body, headers={**headers, "Idempotency-Key": self._key})
        return HttpRequest("GET", f"/v1/reason/{self.response_id}/events?starting_after={self._last}", headers=headers)

    def opened(self, answer: HttpAnswer) -> float | None:
        """None if events follow, or the seconds after which to try again. Raises what the server said."""
        if not answer.is_success:
            return self._retries.wait_s(answer.error())
        if answer.status == NO_CONTENT:
            self.has_nothing_left = True
            return None
        if not answer.headers.get("content-type", "").startswith(EVENT_STREAM):
            raise UnexpectedAnswer(f"{answer.url} sent no events; is that an ilvr server?", status=answer.status)
        return None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events in it that are new. Raises ``UnexpectedAnswer``: one is missing, or is none."""
        try:
            for event in self._parser.feed(chunk):
                if event.sequence_number <= self._last:
                    continue
                if event.sequence_number != self._last + 1:
                    raise UnexpectedAnswer(
                        f"event {event.sequence_number} came after {self._last}; one is missing", status=200
                    )
                self._heard(event)
                yield event
        except msgspec.DecodeError as error:  # its ValidationError too
            raise UnexpectedAnswer(f"an event of another version? {error}", status=200) from error

    def broke(self, url: str, error: Exception | None) -> float:
        """The stream ended before its time. The seconds after which to try again; raises ``ConnectionFailed``."""
        return self._retries.wait_s(_failure(url, error))

    def terminal(self) -> Terminal:
        if self.end is not None:
            return self.end
        if self.has_nothing_left:
            raise RuntimeError(f"nothing came after the events heard before; get({self.response_id!r}) is the response")
        raise RuntimeError("the response has not ended yet: iterate over its events first")

    def response(self) -> Response:
        """What the terminal event holds. Raises the error of a failed one, and ``ResponseCancelled``."""
        end = self.terminal()
        if isinstance(end, Failed):
            raise error_of(end.error.code, end.error.message)
        if isinstance(end, Cancelled):
            raise ResponseCancelled(f"{end.response_id} was cancelled: by a call, or as nobody read it for a while.")
        return end.response

    def _heard(self, event: Event) -> None:
        self._retries.succeeded()
        self._last = event.sequence_number
        if isinstance(event, Created):
            self.response_id = event.response_id
        elif isinstance(event, Terminal):
            self.end = event


def _failure(url: str, error: Exception | None) -> ConnectionFailed:
    reason = "it ended too soon" if error is None else str(error) or type(error).__name__
    return ConnectionFailed(f"the connection to {url} failed: {reason}")
