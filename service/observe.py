"""One count and one line of log for each HTTP request, when it is over.

The line says who asked for what and how it went: never the path that was typed, a header, or anything of a body.
"""

import logging
import re
import time

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.tracing import span
from service.gateway import Gateway

log = logging.getLogger("ilvr.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every few seconds by machines: their lines are of level DEBUG while all is well.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
NO_ROUTE = "none"
RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")


class ObserveMiddleware:
    """Plain ASGI, so that streams pass through unbuffered."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._metrics = gateway.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.monotonic()
        status, num_bytes, is_whole = 500, 0, False  # as long as nothing is sent: a defect ends it without an answer

        async def watched_send(message: Message) -> None:
            nonlocal status, num_bytes, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                num_bytes += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            with (
                self._metrics.http_in_flight.track_inprogress(),
                span("request", kind="server", parent=_trace_context(scope)) as server_span,
            ):
                try:
                    await self._app(scope, receive, watched_send)
                finally:
                    server_span.http(method_of(scope), route_of(scope), status)
        finally:
            duration_s = time.monotonic() - started_at
            method, route = method_of(scope), route_of(scope)
            self._metrics.http_requests.labels(method=method, route=route, status=str(status)).inc()
            self._metrics.http_time.labels(route=route).observe(duration_s)
            caller = scope.get("state", {}).get("caller")
            log.log(
                logging.DEBUG if route in PROBES and status == 200 else logging.INFO,
                "request",
                extra={
                    "method": method,
                    "route": route,
                    "status": status,
                    "duration_s": round(duration_s, 4),
                    "bytes": num_bytes,
                    "is_whole": is_whole,
                    "owner": caller.owner if caller is not None else "",
                    **_response_id(scope),
                },
            )


def _response_id(scope: Scope) -> dict[str, str]:
    """Where it is in the path, and is an id: anything else is what somebody typed."""
    given = scope.get("path_params", {}).get("response_id", "")
    return {"response_id": given} if RESPONSE_ID.fullmatch(given) else {}


def method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "OTHER"


def route_of(scope: Scope) -> str:
    """The template of the route that answered, or would have; ``none`` if there is none for the path."""
    route: BaseRoute | None = scope.get("route")
    if route is None:  # refused before it was looked up
        matches = {match: route for route in reversed(scope["app"].routes) for match in [route.matches(scope)[0]]}
        route = matches.get(Match.FULL) or matches.get(Match.PARTIAL)
    return str(getattr(route, "path", NO_ROUTE))


def _trace_context(scope: Scope) -> dict[str, str]:
    headers = Headers(scope=scope)
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
