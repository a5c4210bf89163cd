"""From a well-formed request to a submitted job. Nothing here decodes a picture."""

import time
import uuid

from starlette.datastructures import Headers

from contracts.errors import ImageNotFound, InvalidRequest, NotSupportedYet, Overloaded
from contracts.jobs import ImageRef, Job, Sampling
from service.body import ReasonBody, check_image_count
from service.gateway import Gateway
from service.images import check_image, decode_base64
from service.schemas import Base64Image, ReasonRequest, RefImage, UrlImage


def refuse_not_yet(request: ReasonRequest, headers: Headers) -> None:
    """Fields of later work. Absent, null, false and empty values are fine. Raises ``NotSupportedYet``."""
    asked = {
        "previous_response_id": request.previous_response_id,
        "background": request.background,
        "latent.include": request.latent and request.latent.include,
        "Idempotency-Key": headers.get("idempotency-key"),
    }
    for index, image in enumerate(request.images or ()):
        asked[f"images.{index}.type"] = isinstance(image, UrlImage) and image.url
    for param, value in asked.items():
        if value:
            raise NotSupportedYet(f"{param} is not supported yet; leave it out.", param=param)


async def submit(gateway: Gateway, body: ReasonBody, model: str) -> Job:
    """Store the images, then hand the job to the broker.

    Raises ``InvalidRequest``, ``NotAnImage``, ``ImageTooLarge``, ``ImageNotFound``, ``Overloaded``, ``NotReady``.
    """
    request, limit = body.request, gateway.settings.question_max_chars
    if len(request.question) > limit:
        raise InvalidRequest(
            f"question: {len(request.question)} characters, at most {limit} are allowed.", param="question"
        )
    check_image_count(len(request.images or ()), gateway.settings.max_images, "images")
    images = await _store_images(gateway, body)
    job = Job(
        response_id=f"resp_{uuid.uuid4().hex}",
        created_at=int(time.time()),
        model=model,
        question=request.question,
        images=tuple(images),
        sampling=_sampling(request),
        latent_mode=(request.latent and request.latent.mode) or "on",
        metadata=request.metadata or {},
    )
    try:
        await gateway.broker.submit(job)
    except ImageNotFound:
        # All were there a moment ago: the store is so full that new files push each other out.
        raise Overloaded("The image store is full. Try again shortly.") from None
    gateway.outcomes.watch(job.response_id)
    return job


async def _store_images(gateway: Gateway, body: ReasonBody) -> list[ImageRef]:
    refs = []
    for index, data in enumerate(body.uploads):
        stored = await check_image(data, gateway.settings, f"image.{index}")
        await gateway.broker.put_image(stored)
        gateway.metrics.image_bytes.inc(len(stored.data))
        refs.append(stored.ref)
    for index, image in enumerate(body.request.images or ()):
        match image:
            case Base64Image():
                param = f"images.{index}.data"
                data = await decode_base64(image.data, gateway.settings, param)
                stored = await check_image(data, gateway.settings, param)
                await gateway.broker.put_image(stored)
                gateway.metrics.image_bytes.inc(len(stored.data))
                refs.append(stored.ref)
            case RefImage():
                refs.append(await _known_image(gateway, image.id, f"images.{index}.id"))
            case UrlImage():
                raise AssertionError("refuse_not_yet lets no url pass")
    return refs


async def _known_image(gateway: Gateway, image_id: str, param: str) -> ImageRef:
    try:
        return (await gateway.broker.get_image(image_id)).ref
    except ImageNotFound as error:
        raise ImageNotFound(f"{param}: {error}", param=param) from None


def _sampling(request: ReasonRequest) -> Sampling:
    return Sampling(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=None if request.top_k is None else max(request.top_k, 0),  # -1 and 0 both mean off
        repetition_penalty=request.repetition_penalty,
        seed=request.seed,
        stop=tuple(request.stop or ()),
    )
