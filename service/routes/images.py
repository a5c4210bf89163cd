"""``POST /v1/images``: upload once, ask often."""

import msgspec
from fastapi import APIRouter, Request, Response

from service.auth import CallerDep
from service.body import read_image_body
from service.gateway import GatewayDep
from service.openapi import IMAGE_BODY, STORED_IMAGE
from service.request_images import store_image

router = APIRouter(tags=["images"])


@router.post("/v1/images", summary="Store an image", openapi_extra=IMAGE_BODY, responses=STORED_IMAGE)
async def put_image(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The same file always gets the same id. Kept for 15 minutes after its last use."""
    with gateway.intake.reserve(request.headers):
        ref = await store_image(gateway, await read_image_body(request), caller.owner, "image")
    return Response(msgspec.json.encode(ref), media_type="application/json")
