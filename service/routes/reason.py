"""``POST /v1/reason``: ask a question, get one answer or a stream."""

import asyncio

import msgspec
from fastapi import APIRouter, Request, Response

from contracts.events import Failed, fold
from contracts.jobs import Job
from contracts.responses import Response as ReasonResponse
from service.admission import refuse_not_yet, submit
from service.auth import Caller, CallerDep
from service.body import read_reason_body
from service.disconnect import until_gone
from service.errors import CLIENT_GONE, answer_for_failed
from service.following import terminal_event
from service.gateway import Gateway, GatewayDep
from service.idempotency import HEADER, read_key
from service.openapi import ANSWER_OR_STREAM, REASON_BODY
from service.sse import EventStream

router = APIRouter(tags=["reason"])


@router.post("/v1/reason", summary="Ask a question about images", openapi_extra=REASON_BODY, responses=ANSWER_OR_STREAM)
async def reason(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """One answer as JSON, or with `stream: true` (or `Accept: text/event-stream`) its events as they happen.

    Send JSON, or a form: `curl -F image=@maze.png -F 'question=Find a safe path from S to G.' …/v1/reason`. In a form,
    `latent.mode` and `metadata.KEY` name nested fields.

    With `background: true` the response object comes at once, unfinished, and goes on without its client.
    """
    with gateway.metrics.counting_refusals():
        job, wants_stream = await _admit(request, gateway, caller)
    if wants_stream:
        return EventStream(gateway, job)
    if job.background:
        return json_answer(fold(job, await gateway.broker.events(job.response_id)))
    return await _answer(gateway, request, job)


async def _admit(request: Request, gateway: Gateway, caller: Caller) -> tuple[Job, bool]:
    """The job to follow, and whether its events are wanted."""
    key = read_key(request.headers)
    await gateway.ready_runners()  # before the body is read: a server that cannot answer takes no upload
    with gateway.intake.reserve(request.headers) as num_bytes:
        await gateway.broker.check_room(num_bytes, owner=caller.owner, idempotency_key=key)
        body = await read_reason_body(request, gateway.settings.max_images)
        refuse_not_yet(body.request)
        model = await gateway.choose_model(body.request.model)
        request_id: str = request.state.request_id
        job = await submit(gateway, body, model=model, caller=caller, idempotency_key=key, request_id=request_id)
    return job, _wants_stream(body.request.stream, request)


def _wants_stream(stream: bool | None, request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "") if stream is None else stream


async def _answer(gateway: Gateway, request: Request, job: Job) -> Response:
    """Wait for the end.

    A client that is gone before it cancels the response, at once unless others read it; with an idempotency key it has
    the grace of a stream, for it may be about to ask again.
    """
    gateway.readers.join(job)
    is_over = False
    end = asyncio.create_task(terminal_event(gateway.broker, job))
    gone = asyncio.create_task(until_gone(request.receive))
    try:
        done, _ = await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
        if end not in done:
            return Response(status_code=CLIENT_GONE)
        event = end.result()
        is_over = True
    finally:
        end.cancel()
        gone.cancel()
        await asyncio.wait([end, gone])
        gateway.readers.leave(job, is_over=is_over, grace_s=None if HEADER in request.headers else 0.0)
    if isinstance(event, Failed):
        return answer_for_failed(request, event.error)
    return json_answer(event.response)


def json_answer(response: ReasonResponse) -> Response:
    return Response(msgspec.json.encode(response), media_type="application/json")
