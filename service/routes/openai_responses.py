"""``POST /v1/responses``: OpenAI's newer words for the same questions; nothing of it is kept for a later one."""

import msgspec
from fastapi import APIRouter, Request, Response

from contracts.errors import ResponseCancelled
from contracts.events import Cancelled, Failed
from contracts.jobs import Job
from service.admission import room_for, submit
from service.auth import Caller, CallerDep
from service.errors import CLIENT_GONE, answer_for_failed
from service.gateway import Gateway, GatewayDep
from service.idempotency import read_key
from service.openai.following import WAS_CANCELLED
from service.openai.questions import check_json, question_of
from service.openai.responses_objects import ended_object
from service.openai.responses_schemas import ResponsesRequest, messages_of, parse_responses
from service.openai.responses_stream import ResponsesStream
from service.openai.telling import Manner
from service.openapi import RESPONSE_OR_STREAM, RESPONSES_BODY
from service.waiting import ends_of

router = APIRouter(tags=["openai"])


@router.post(
    "/v1/responses",
    summary="Ask as OpenAI's clients do, by typed events",
    openapi_extra=RESPONSES_BODY,
    responses=RESPONSE_OR_STREAM,
)
async def responses(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """A reasoning item with the steps, and a message with the answer; docs/openai.md says what differs."""
    with gateway.metrics.counting_refusals():
        asked, job = await _admit(request, gateway, caller)
    manner = Manner(has_markers=not (asked.latent and asked.latent.marker is False))
    if asked.stream:
        return ResponsesStream(gateway, job, asked, manner)
    ends = await ends_of(gateway, request, [job])
    if ends is None:
        return Response(status_code=CLIENT_GONE)
    (end,) = ends
    if isinstance(end, Failed):
        return answer_for_failed(request, end.error)
    if isinstance(end, Cancelled):
        raise ResponseCancelled(WAS_CANCELLED)
    return Response(msgspec.json.encode(ended_object(job, asked, end, manner)), media_type="application/json")


async def _admit(request: Request, gateway: Gateway, caller: Caller) -> tuple[ResponsesRequest, Job]:
    key = read_key(request.headers)
    async with room_for(gateway, request.headers, caller, key):
        check_json(request)
        asked = parse_responses(await request.body())
        body = question_of(asked, messages_of(asked), asked.max_output_tokens, gateway.settings)
        model = await gateway.choose_model(asked.model)
        request_id: str = request.state.request_id
        job = await submit(gateway, body, model=model, caller=caller, idempotency_key=key, request_id=request_id)
    return asked, job
