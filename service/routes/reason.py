"""``POST /v1/reason``: ask a question, get one answer or a stream."""

import msgspec
from fastapi import APIRouter, Request, Response

from contracts.events import Failed, fold
from contracts.jobs import Job
from contracts.responses import Response as ReasonResponse
from service.admission import refuse_not_yet, room_for, submit
from service.auth import Caller, CallerDep
from service.body import read_reason_body
from service.errors import CLIENT_GONE, answer_for_failed
from service.gateway import Gateway, GatewayDep
from service.idempotency import read_key
from service.openapi import ANSWER_OR_STREAM, REASON_BODY
from service.sse import EventStream
from service.waiting import ends_of

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
    async with room_for(gateway, request.headers, caller, key):
        body = await read_reason_body(request, gateway.settings.max_images)
        refuse_not_yet(body.request)
        model = await gateway.choose_model(body.request.model)
        request_id: str = request.state.request_id
        job = await submit(gateway, body, model=model, caller=caller, idempotency_key=key, request_id=request_id)
    return job, _wants_stream(body.request.stream, request)


def _wants_stream(stream: bool | None, request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "") if stream is None else stream


async def _answer(gateway: Gateway, request: Request, job: Job) -> Response:
    ends = await ends_of(gateway, request, [job])
    if ends is None:
        return Response(status_code=CLIENT_GONE)
    if isinstance(ends[0], Failed):
        return answer_for_failed(request, ends[0].error)
    return json_answer(ends[0].response)


def json_answer(response: ReasonResponse) -> Response:
    return Response(msgspec.json.encode(response), media_type="application/json")
