"""For whoever operates the server: is it alive, can it answer, how is it doing, what is it."""

import asyncio
import platform
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from contracts.errors import BrokerUnavailable, NotReady
from service.auth import CallerDep
from service.gateway import GatewayDep

# The broker tries again for longer than who asks this waits.
ASK_BROKER_S = 0.8

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Alive")
async def healthz() -> dict[str, str]:
    """The gateway process answers. Says nothing of the model."""
    return {"status": "ok"}


@router.get("/readyz", summary="Ready")
async def readyz(gateway: GatewayDep, caller: CallerDep) -> dict[str, Any]:
    """503 with the reason unless a runner is ready, the broker can be asked at once, and the gateway will stay.

    Where keys are on, which runners there are and what ails them is told to a caller with a key only.
    """
    if gateway.is_stopping:
        raise NotReady("This gateway is stopping.")
    try:
        async with asyncio.timeout(ASK_BROKER_S):
            runners = await gateway.ready_runners()
    except TimeoutError:
        raise NotReady("The broker does not answer.") from None
    except NotReady:
        if caller.is_known:
            raise
        raise NotReady("No model is ready to answer.") from None
    if not caller.is_known:
        return {"status": "ready"}
    return {"status": "ready", "runners": [runner.runner_id for runner in runners]}


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(gateway: GatewayDep) -> Response:
    """The gateway's, with what the broker says of the runners just now."""
    try:
        async with asyncio.timeout(ASK_BROKER_S):
            runners = await gateway.broker.runners()
    except (TimeoutError, BrokerUnavailable):
        gateway.metrics.see_no_broker()
    else:
        gateway.metrics.see_runners(sum(runner.is_ready for runner in runners), len(runners))
    text = await asyncio.to_thread(generate_latest, gateway.registry)  # some 10 ms, which no stream should wait for
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/version", summary="Versions")
async def versions(gateway: GatewayDep, caller: CallerDep) -> dict[str, Any]:
    """Without a key, where keys are on, that of the gateway only."""
    if not caller.is_known:
        return {"ilvr": version("ilvr")}
    return {
        "ilvr": version("ilvr"),
        "python": platform.python_version(),
        "runners": [msgspec.structs.asdict(runner) for runner in await gateway.broker.runners()],
    }
