"""``GET /v1/models``: what is served, in OpenAI's list shape."""

from typing import Any

from fastapi import APIRouter

from service.gateway import GatewayDep

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="The served models")
async def models(gateway: GatewayDep) -> dict[str, Any]:
    """`latent_size` is K, the most latent steps in one block. `latent_ablation` is not `none` where something else than
    the model's own latents is fed back, and answers are not the model's."""
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
    return {"object": "list", "data": list(listed.values())}
