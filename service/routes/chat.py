"""``POST /v1/chat/completions``: the same questions as ``/v1/reason``, in OpenAI's words."""

import math

from fastapi import APIRouter, Request, Response

from contracts.errors import IlvrError, InvalidRequest, RateLimited
from contracts.jobs import Job
from service.admission import room_for, submit
from service.auth import Caller, CallerDep
from service.errors import CLIENT_GONE
from service.gateway import Gateway, GatewayDep
from service.idempotency import read_key
from service.openai.completion import completion
from service.openai.questions import Chat, read_chat
from service.openai.stream import ChatStream
from service.openai.telling import manner_of
from service.openapi import CHAT_BODY, COMPLETION_OR_STREAM
from service.waiting import ends_of

router = APIRouter(prefix="/v1/chat", tags=["openai"])


@router.post(
    "/completions", summary="Ask as OpenAI's clients do", openapi_extra=CHAT_BODY, responses=COMPLETION_OR_STREAM
)
async def chat_completions(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Steps are `reasoning_content`, the answer is `content`; a stream ends with `data: [DONE]`, or with an `error`
    object. docs/openai.md says what differs from OpenAI's."""
    with gateway.metrics.counting_refusals():
        chat, jobs = await _admit(request, gateway, caller)
    asked, manner = chat.request, manner_of(chat.request)
    if asked.stream:
        has_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return ChatStream(gateway, jobs, manner, has_usage=has_usage)
    ends = await ends_of(gateway, request, jobs)
    if ends is None:
        return Response(status_code=CLIENT_GONE)
    return completion(request, jobs, ends, manner)


async def _admit(request: Request, gateway: Gateway, caller: Caller) -> tuple[Chat, list[Job]]:
    """A job for each choice: all of them, or none."""
    key = read_key(request.headers)
    async with room_for(gateway, request.headers, caller, key):
        chat = await read_chat(request, gateway.settings)
        model = await gateway.choose_model(chat.request.model)
        await _pay_for_copies(gateway, caller, chat.num_choices, key)
        request_id: str = request.state.request_id
        jobs: list[Job] = []
        try:
            for number in range(chat.num_choices):
                body = chat.another(number, jobs[0]) if number else chat.body
                job = await submit(
                    gateway, body, model=model, caller=caller, idempotency_key=key, request_id=request_id
                )
                jobs.append(job)
        except IlvrError:
            for job in jobs:
                await gateway.broker.cancel(job.response_id)
            raise
    return chat, jobs


async def _pay_for_copies(gateway: Gateway, caller: Caller, num_choices: int, key: str | None) -> None:
    """The request itself is paid for."""
    if num_choices == 1:
        return
    if key is not None:
        raise InvalidRequest("n: an Idempotency-Key stands for one response; leave one of the two out.", param="n")
    limit = caller.rate_limit
    if limit is None:
        return
    if num_choices > limit.burst:
        raise InvalidRequest(f"n: this API key may ask for at most {limit.burst} at once.", param="n")
    try:
        await gateway.broker.spend(caller.owner, limit, count=num_choices - 1)
    except RateLimited as error:  # who comes back then pays for the request itself first
        first_s = math.ceil(60.0 / limit.per_minute)
        raise RateLimited(str(error), retry_after_s=error.retry_after_s + first_s) from None
