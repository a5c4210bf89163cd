"""Spans of one request across processes, or nothing at all: OpenTelemetry is imported only once traces are on.

W3C trace context travels in a mapping (``traceparent``, ``tracestate``): HTTP headers between client and gateway,
``Job.trace`` between gateway and runner.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

Kind = Literal["internal", "server", "producer", "consumer"]
Value = str | int | float | bool


class Span(Protocol):
    def set(self, **attributes: Value) -> None:
        """Attributes; ``ilvr.`` is put before their names."""
        ...

    def event(self, name: str, **attributes: Value) -> None:
        """Something that happens now."""
        ...

    def http(self, method: str, route: str, status: int) -> None:
        """What a server span is named by, under OpenTelemetry's own names."""
        ...

    def fail(self, reason: str) -> None: ...

    def carrier(self) -> dict[str, str]:
        """What another process needs to go on from this span; empty while traces are off."""
        ...


class Tracer(Protocol):
    def span(
        self, name: str, kind: Kind, parent: Mapping[str, str] | None, started_at_ns: int | None
    ) -> "AbstractSpanContext": ...


class AbstractSpanContext(Protocol):
    def __enter__(self) -> Span: ...

    def __exit__(self, *error: Any) -> None: ...


class _NoSpan:
    """Traces are off."""

    def set(self, **attributes: Value) -> None: ...

    def event(self, name: str, **attributes: Value) -> None: ...

    def http(self, method: str, route: str, status: int) -> None: ...

    def fail(self, reason: str) -> None: ...

    def carrier(self) -> dict[str, str]:
        return {}

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *error: Any) -> None: ...


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None


@contextmanager
def tracing_with(tracer: Tracer) -> Iterator[None]:
    """Traces are on in this process while the block runs."""
    global _tracer
    before, _tracer = _tracer, tracer
    try:
        yield
    finally:
        _tracer = before


def span(
    name: str, *, kind: Kind = "internal", parent: Mapping[str, str] | None = None, began_s_ago: float = 0.0
) -> AbstractSpanContext:
    """A span around a block. Its parent is what ``parent`` carries, else the span around it in this task.

    began_s_ago: for what began before anybody here could know.
    """
    if _tracer is None:
        return _NO_SPAN
    return _tracer.span(name, kind, parent, time.time_ns() - round(began_s_ago * 1e9) if began_s_ago else None)
