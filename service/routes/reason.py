"""``POST /v1/reason``: ask a question, get one answer or a stream."""

import asyncio

import msgspec
from fastapi import APIRouter, Request, Response

from contracts.broker import Broker
from contracts.errors import EngineDead
from contracts.events import Failed, Terminal
from contracts.responses import Response as ReasonResponse
from service.admission import refuse_not_yet, submit
from service.body import read_reason_body
from service.disconnect import until_gone
from service.errors import CLIENT_GONE, answer_for_failed
from service.gateway import Gateway, GatewayDep
from service.openapi import ANSWER_OR_STREAM, REASON_BODY
from service.sse import EventStream

router = APIRouter(tags=["reason"])


@router.post("/v1/reason", summary="Ask a question about images", openapi_extra=REASON_BODY, responses=ANSWER_OR_STREAM)
async def reason(request: Request, gateway: GatewayDep) -> Response:
    """One answer as JSON, or with `stream: true` (or `Accept: text/event-stream`) its events as they happen.

    Send JSON, or a form: `curl -F image=@maze.png -F 'question=Find a safe path from S to G.' …/v1/reason`. In a form,
    `latent.mode` and `metadata.KEY` name nested fields.
    """
    with gateway.metrics.counting_refusals():
        await gateway.ready_runners()  # before the body is read: a server that cannot answer takes no upload
        body = await read_reason_body(request, gateway.settings.max_images)
        refuse_not_yet(body.request, request.headers)
        model = await gateway.choose_model(body.request.model)
        job = await submit(gateway, body, model)
    if _wants_stream(body.request.stream, request):
        return EventStream(gateway, job.response_id)
    return await _answer(gateway, request, job.response_id)


def _wants_stream(stream: bool | None, request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "") if stream is None else stream


async def _answer(gateway: Gateway, request: Request, response_id: str) -> Response:
    """Wait for the end. A client that is gone before it cancels the response at once."""
    gateway.readers.join(response_id)
    end = asyncio.create_task(_terminal_event(gateway.broker, response_id))
    gone = asyncio.create_task(until_gone(request.receive))
    try:
        done, _ = await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
        if end not in done:
            await gateway.broker.cancel(response_id)
            return Response(status_code=CLIENT_GONE)
        event = end.result()
    finally:
        end.cancel()
        gone.cancel()
        await asyncio.wait([end, gone])
        gateway.readers.leave(response_id, is_over=True)
    if isinstance(event, Failed):
        return answer_for_failed(request, event.error)
    return json_answer(event.response)


async def _terminal_event(broker: Broker, response_id: str) -> Terminal:
    async for event in broker.follow(response_id):
        if isinstance(event, Terminal):
            return event
    raise EngineDead("The server was stopped before it finished this response.")


def json_answer(response: ReasonResponse) -> Response:
    return Response(msgspec.json.encode(response), media_type="application/json")
