"""For whoever operates the server: is it alive, can it answer, how is it doing, what is it."""

import platform
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.gateway import GatewayDep

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Alive")
async def healthz() -> dict[str, str]:
    """The gateway process answers. Says nothing of the model."""
    return {"status": "ok"}


@router.get("/readyz", summary="Ready")
async def readyz(gateway: GatewayDep) -> dict[str, Any]:
    """503 with the reason unless a runner is ready."""
    runners = await gateway.ready_runners()
    return {"status": "ready", "runners": [runner.runner_id for runner in runners]}


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(gateway: GatewayDep) -> Response:
    return Response(generate_latest(gateway.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/version", summary="Versions")
async def versions(gateway: GatewayDep) -> dict[str, Any]:
    return {
        "ilvr": version("ilvr"),
        "python": platform.python_version(),
        "runners": [msgspec.structs.asdict(runner) for runner in await gateway.broker.runners()],
    }
