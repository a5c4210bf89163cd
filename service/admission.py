"""From a well-formed request to a submitted job. Nothing here decodes a picture."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import structs
from starlette.datastructures import Headers
from structlog.contextvars import bind_contextvars

from contracts.errors import ImageNotFound, InvalidRequest, NotSupportedYet, Overloaded
from contracts.jobs import Job, Sampling
from contracts.tracing import span
from service.auth import Caller
from service.body import ReasonBody, check_image_count
from service.conversation import conversation_before
from service.gateway import Gateway
from service.idempotency import identify
from service.request_images import store_images
from service.schemas import ReasonRequest


@asynccontextmanager
async def room_for(gateway: Gateway, headers: Headers, caller: Caller, key: str | None) -> AsyncIterator[None]:
    """Around the reading of a question's body and its submission: a server that cannot answer takes no upload.

    Raises ``NotReady``, ``Overloaded``, ``BrokerUnavailable``.
    """
    await gateway.ready_runners()
    with gateway.intake.reserve(headers) as num_bytes:
        await gateway.broker.check_room(num_bytes, owner=caller.owner, idempotency_key=key)
        yield


def refuse_not_yet(request: ReasonRequest) -> None:
    """Fields of later work. Absent, null, false and empty values are fine. Raises ``NotSupportedYet``."""
    asked: dict[str, object] = {
        "latent.include": request.latent and request.latent.include,
    }
    for param, value in asked.items():
        if value:
            raise NotSupportedYet(f"{param} is not supported yet; leave it out.", param=param)


async def submit(
    gateway: Gateway, body: ReasonBody, *, model: str, caller: Caller, idempotency_key: str | None, request_id: str
) -> Job:
    """Store the images, then hand the job to the broker. Returns the job to follow, which may be one of before.

    Raises ``InvalidRequest``, ``NotAnImage``, ``ImageTooLarge``, ``ImageNotFound``, ``ResponseNotFound``,
    ``ResponseNotFinished``, ``Overloaded``, ``RateLimited``, ``IdempotencyConflict``, ``NotReady``,
    ``BrokerUnavailable``.
    """
    request, limit = body.request, gateway.settings.question_max_chars
    if len(request.question) > limit:
        raise InvalidRequest(
            f"question: {len(request.question)} characters, at most {limit} are allowed.", param="question"
        )
    check_image_count(len(request.images or ()), gateway.settings.max_images, "images")
    timeout_s = _timeout_s(gateway, request)
    before = await conversation_before(gateway, request.previous_response_id, caller, model)
    num_images = len(before.images) + len(body.uploads) + len(request.images or ())
    check_image_count(num_images, gateway.settings.max_images, "images")
    job = Job(
        response_id=f"resp_{uuid.uuid4().hex}",
        created_at=int(time.time()),
        model=model,
        question=request.question,
        images=(*before.images, *await store_images(gateway, body, caller.owner)),
        history=(*before.turns, *body.history),
        sampling=_sampling(request),
        latent_mode=(request.latent and request.latent.mode) or "on",
        metadata=request.metadata or {},
        owner=caller.owner,
        background=bool(request.background),
        timeout_s=timeout_s,
        request_id=request_id,
    )
    bind_contextvars(response_id=job.response_id)
    try:
        with span("submit", kind="producer") as submitting:
            job = structs.replace(job, trace=submitting.carrier())
            response_id = await gateway.broker.submit(
                job, idempotency=identify(idempotency_key, request, job), max_open=caller.max_open
            )
            submitting.set(response_id=response_id, num_images=len(job.images))
    except ImageNotFound:
        # All were there a moment ago: the store is so full that new files push each other out.
        raise Overloaded("The image store is full. Try again shortly.") from None
    if response_id != job.response_id:
        bind_contextvars(response_id=response_id)
        return await gateway.broker.job(response_id)
    gateway.outcomes.watch(job.response_id)
    return job


def _timeout_s(gateway: Gateway, request: ReasonRequest) -> float:
    limit_s = gateway.settings.max_timeout_s
    if request.timeout_s is None:
        return min(gateway.settings.default_timeout_s, limit_s)
    if request.timeout_s > limit_s:
        raise InvalidRequest(f"timeout_s: at most {limit_s:g} seconds are allowed.", param="timeout_s")
    return request.timeout_s


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
