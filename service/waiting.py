"""For who asks for no stream: the end of what was asked, or of the waiting."""

import asyncio
from collections.abc import Sequence

from fastapi import Request

from contracts.events import Terminal
from contracts.jobs import Job
from service.disconnect import until_gone
from service.following import terminal_event
from service.gateway import Gateway
from service.idempotency import HEADER


async def ends_of(gateway: Gateway, request: Request, jobs: Sequence[Job]) -> Sequence[Terminal] | None:
    """How each of them ended; None: the client is gone. Raises as ``terminal_event`` does.

    A client that is gone before it cancels them, at once unless others read them; with an idempotency key it has the
    grace of a stream, for it may be about to ask again.
    """
    for job in jobs:
        gateway.readers.join(job)
    is_over = False
    ends = asyncio.create_task(_all_ends(gateway, jobs))
    gone = asyncio.create_task(until_gone(request.receive))
    try:
        done, _ = await asyncio.wait([ends, gone], return_when=asyncio.FIRST_COMPLETED)
        if ends not in done:
            return None
        events = ends.result()
        is_over = True
    finally:
        ends.cancel()
        gone.cancel()
        await asyncio.wait([ends, gone])
        for job in jobs:
            gateway.readers.leave(job, is_over=is_over, grace_s=None if HEADER in request.headers else 0.0)
    return events


async def _all_ends(gateway: Gateway, jobs: Sequence[Job]) -> Sequence[Terminal]:
    return await asyncio.gather(*(terminal_event(gateway.broker, job) for job in jobs))
