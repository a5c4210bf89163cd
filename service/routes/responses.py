"""What can be done with a response once it exists: look, follow, cancel."""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from contracts.errors import InvalidRequest
from contracts.events import Terminal, fold
from service.auth import CallerDep
from service.gateway import GatewayDep
from service.openapi import ANSWER, STREAM
from service.routes.reason import json_answer
from service.sse import EventStream

MAX_NUMBER = 10**9  # no response has so many events

router = APIRouter(prefix="/v1/reason/{response_id}", tags=["reason"])


@router.get("", summary="The response object, finished or not", responses=ANSWER)
async def get_response(response_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Of an unfinished response, `steps` holds the completed steps. Kept for 15 minutes after the end."""
    job = await gateway.job_of(response_id, caller)
    return json_answer(fold(job, await gateway.broker.events(response_id)))


@router.get("/events", summary="Replay and follow the events", responses=STREAM)
async def follow(
    response_id: str,
    gateway: GatewayDep,
    caller: CallerDep,
    starting_after: Annotated[
        int, Query(ge=-1, le=MAX_NUMBER, description="The last sequence number that you have.")
    ] = -1,
    last_event_id: Annotated[str | None, Header(description="The same; set by a browser that reconnects.")] = None,
) -> Response:
    """Server-sent events with greater sequence numbers, those to come included; 204 if there will be none."""
    if last_event_id:
        # A browser repeats the URL that it began with, so its header is the later word.
        starting_after = _sequence_number(last_event_id)
    job = await gateway.job_of(response_id, caller)
    if starting_after >= 0:  # else there is something to tell, and no reason to read the whole log at once
        events = await gateway.broker.events(response_id)
        if events and isinstance(events[-1], Terminal) and starting_after >= events[-1].sequence_number:
            return Response(status_code=204)  # which tells a browser's EventSource not to come back
    return EventStream(gateway, job, starting_after)


@router.post("/cancel", summary="Stop it and free its place", responses=ANSWER)
async def cancel(response_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Idempotent; a finished response stays as it is. Answers once the response has ended, or after a short wait."""
    await gateway.job_of(response_id, caller)
    await gateway.broker.cancel(response_id)
    with suppress(TimeoutError):
        async with asyncio.timeout(gateway.settings.cancel_wait_s):
            async for _ in gateway.broker.follow(response_id, deltas=False):
                pass
    return await get_response(response_id, gateway, caller)


def _sequence_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER))):
        raise InvalidRequest("Last-Event-ID: a sequence number is expected.", param="Last-Event-ID")
    return int(text)
