"""``GET /v1/models``: what is served, in OpenAI's list shape."""

from typing import Any

from fastapi import APIRouter

from contracts.errors import ModelNotFound
from service.gateway import Gateway, GatewayDep

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="The served models")
async def models(gateway: GatewayDep) -> dict[str, Any]:
    """`latent_size` is K, the most latent steps in one block. `latent_ablation` is not `none` where something else than
    the model's own latents is fed back, and answers are not the model's."""
    return {"object": "list", "data": list((await _listed(gateway)).values())}


@router.get("/{model:path}", summary="One of them")
async def model(model: str, gateway: GatewayDep) -> dict[str, Any]:
    """As in the list."""
    found = (await _listed(gateway)).get(model)
    if found is None:
        raise ModelNotFound("model: none of that name is served here; GET /v1/models lists those that are.")
    return found


async def _listed(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """By name. A model is ready where one of its runners is."""
    listed: dict[str, dict[str, Any]] = {}
    for runner in await gateway.broker.runners():
        model = listed.setdefault(
            runner.model,
            {
                "id": runner.model,
                "object": "model",
                "created": gateway.started_at,
                "owned_by": "ilvr",
                "latent_size": runner.latent_size,
                "latent_exit": runner.latent_exit,
                "latent_ablation": runner.latent_ablation,
                "is_ready": False,
            },
        )
        model["is_ready"] |= runner.is_ready
    return listed
