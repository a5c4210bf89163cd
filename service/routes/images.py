"""``POST /v1/images``: upload once, ask often."""

import msgspec
from fastapi import APIRouter, Request, Response

from service.body import read_image_body
from service.gateway import GatewayDep
from service.images import check_image
from service.openapi import IMAGE_BODY, STORED_IMAGE

router = APIRouter(tags=["images"])


@router.post("/v1/images", summary="Store an image", openapi_extra=IMAGE_BODY, responses=STORED_IMAGE)
async def put_image(request: Request, gateway: GatewayDep) -> Response:
    """The same file always gets the same id. Kept for 15 minutes after its last use."""
    stored = await check_image(await read_image_body(request), gateway.settings, "image")
    await gateway.broker.put_image(stored)
    gateway.metrics.image_bytes.inc(len(stored.data))
    return Response(msgspec.json.encode(stored.ref), media_type="application/json")
