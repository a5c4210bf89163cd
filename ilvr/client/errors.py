"""An error that a server answered with, as the class of the same code."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from contracts import errors as e

# What a proxy answers by itself while its servers are away, restarted or full.
BUSY = (429, 502, 503, 504)


class ConnectionFailed(e.IlvrError):
    """No server, or none any more, after all retries."""

    code = "connection_failed"
    is_retryable = True


class ServerAway(e.CapacityError):
    """Something in front of the server, a proxy or a load balancer, says that it cannot be reached now."""

    code = "server_away"


class UnexpectedAnswer(e.IlvrError):
    """An answer that no ilvr server of this version gives; ``status`` is its HTTP status."""

    code = "unexpected_answer"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def _leaves(cls: type[e.IlvrError]) -> Iterator[type[e.IlvrError]]:
    if hasattr(cls, "code"):
        yield cls
    for sub in cls.__subclasses__():
        if sub.__module__ == e.__name__:
            yield from _leaves(sub)


ERROR_BY_CODE: Mapping[str, type[e.IlvrError]] = {cls.code: cls for cls in _leaves(e.IlvrError)}


def error_of(code: str, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> e.IlvrError:
    """Of a public code; an ``EngineError`` if this version does not know it."""
    cls = ERROR_BY_CODE.get(code, e.GenerationFailed)
    if issubclass(cls, e.CapacityError):
        return cls(message, param=param, retry_after_s=retry_after_s)
    return cls(message, param=param)


def error_of_answer(url: str, status: int, body: object, retry_after: str | None) -> e.IlvrError:
    """Of an answer that is not 2xx; ``body`` is its JSON, or None if it is none."""
    detail = body.get("error") if isinstance(body, dict) else None
    if not isinstance(detail, dict) or detail.get("code") not in ERROR_BY_CODE:
        said = detail.get("message") if isinstance(detail, dict) else None
        if status in BUSY:
            message = f"{url} answered HTTP {status}; {said or 'what is in front of the server cannot reach it'}"
            return ServerAway(message, retry_after_s=_seconds(retry_after))
        return UnexpectedAnswer(f"{url} answered HTTP {status}; {said or 'is that an ilvr server?'}", status=status)
    param = detail.get("param")
    return error_of(detail["code"], str(detail.get("message")), param=param, retry_after_s=_seconds(retry_after))


def _seconds(retry_after: str | None) -> int | None:
    """Of the header in either of its forms, seconds or a date; None if it is neither."""
    if retry_after is None or retry_after.isdecimal():
        return int(retry_after) if retry_after else None
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(math.ceil((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()), 0)
