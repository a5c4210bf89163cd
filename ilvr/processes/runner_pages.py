"""The runner's own small HTTP server: is it alive, can it answer, how is it doing."""

import asyncio
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def runner_pages(registry: CollectorRegistry, why_not_ready: Callable[[], str]) -> Starlette:
    """``/healthz``, ``/readyz``, ``/metrics``. ``why_not_ready`` returns "" while the runner is ready."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        reason = why_not_ready()
        if reason:
            return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def metrics(request: Request) -> Response:
        text = await asyncio.to_thread(generate_latest, registry)  # some 10 ms, which no answer should wait for
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])
