"""Traces by OpenTelemetry: the one module that imports it, and only once traces are asked for."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from contracts.errors import BadSettings
from contracts.tracing import Kind, Value, tracing_with

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

FIRST_SERVER_ERROR = 500
LAST_SPANS_S = 2.0
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextmanager
def exporting_traces(process: str) -> Iterator[None]:
    """On if the environment names an endpoint for OTLP over HTTP, and not ``OTEL_SDK_DISABLED``; else nothing happens.

    Other ``OTEL_`` variables (sampler, headers, service name) are read by OpenTelemetry itself. Spans are sent in the
    background; a collector that cannot be reached costs spans, never an answer.

    Raises ``BadSettings`` if the packages are not installed.
    """
    is_on = any(os.environ.get(name) for name in ENDPOINTS)
    if not is_on or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise BadSettings(f"{ENDPOINTS[0]} is set and OpenTelemetry is not installed; install ilvr[otel]") from error
    os.environ.setdefault("OTEL_SERVICE_NAME", f"ilvr-{process}")
    resource = Resource.create({SERVICE_NAME: os.environ["OTEL_SERVICE_NAME"]})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        with tracing_with(OpenTelemetryTracer(provider)):
            yield
    finally:
        # It would try again for some 20 s, which is longer than a process may take to end.
        last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(LAST_SPANS_S)


class OpenTelemetryTracer:
    """``contracts.tracing.Tracer`` of a provider."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("ilvr")
        self._propagator = TraceContextTextMapPropagator()

    def span(
        self, name: str, kind: Kind, parent: Mapping[str, str] | None, started_at_ns: int | None
    ) -> "_SpanContext":
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        # Without a parent that is given, the one around it in this task.
        context = None if parent is None else self._propagator.extract(parent, Context())
        return _SpanContext(
            self._tracer.start_as_current_span(
                name,
                context,
                SpanKind[kind.upper()],
                start_time=started_at_ns,
                # What an exception says may hold what somebody asked.
                record_exception=False,
                set_status_on_exception=False,
            ),
            self._propagator,
        )


class _SpanContext:
    def __init__(self, manager: Any, propagator: Any) -> None:
        self._manager = manager
        self._propagator = propagator

    def __enter__(self) -> "_Span":
        self._span = _Span(self._manager.__enter__(), self._propagator)
        return self._span

    def __exit__(self, *error: Any) -> None:
        if isinstance(error[1], Exception):
            self._span.fail(getattr(error[1], "code", type(error[1]).__name__))
        self._manager.__exit__(*error)


class _Span:
    def __init__(self, span: "Span", propagator: Any) -> None:
        self._span = span
        self._propagator = propagator

    def set(self, **attributes: Value) -> None:
        self._span.set_attributes({f"ilvr.{name}": value for name, value in attributes.items()})

    def event(self, name: str, **attributes: Value) -> None:
        self._span.add_event(name, {f"ilvr.{key}": value for key, value in attributes.items()})

    def http(self, method: str, route: str, status: int) -> None:
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if status >= FIRST_SERVER_ERROR:
            self.fail(str(status))

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, reason))

    def carrier(self) -> dict[str, str]:
        from opentelemetry.trace import set_span_in_context

        carried: dict[str, str] = {}
        self._propagator.inject(carried, set_span_in_context(self._span))
        return carried
