"""The images of a question, kept by the broker before a job refers to them."""

from contracts.errors import ImageNotFound
from contracts.jobs import ImageRef
from service.body import ReasonBody
from service.gateway import Gateway
from service.images import check_image, decode_base64
from service.schemas import Base64Image, RefImage, UrlImage


async def store_images(gateway: Gateway, body: ReasonBody, owner: str) -> list[ImageRef]:
    """In their order. Raises as ``store_image`` does, and ``ImageNotFound``."""
    refs = []
    for index, data in enumerate(body.uploads):
        refs.append(await store_image(gateway, data, owner, f"image.{index}"))
    for index, image in enumerate(body.request.images or ()):
        place = body.image_params[index] if body.image_params else None
        match image:
            case Base64Image():
                param = place or f"images.{index}.data"
                data = await decode_base64(image.data, gateway.settings, param)
                refs.append(await store_image(gateway, data, owner, param))
            case RefImage():
                refs.append(await _known_image(gateway, image.id, owner, place or f"images.{index}.id"))
            case UrlImage():
                param = place or f"images.{index}.url"
                data = await gateway.image_fetcher.fetch(image.url, param)
                refs.append(await store_image(gateway, data, owner, param))
    return refs


async def store_image(gateway: Gateway, data: bytes, owner: str, param: str) -> ImageRef:
    """One file. Raises ``InvalidRequest``, ``NotAnImage``, ``ImageTooLarge``, ``Overloaded``."""
    stored = await check_image(data, gateway.settings, param)
    await gateway.broker.put_image(stored, owner=owner)
    gateway.metrics.image_bytes.inc(len(stored.data))
    return stored.ref


async def _known_image(gateway: Gateway, image_id: str, owner: str, param: str) -> ImageRef:
    try:
        return await gateway.broker.image_ref(image_id, owner=owner)
    except ImageNotFound as error:
        raise ImageNotFound(f"{param}: {error}", param=param) from None
