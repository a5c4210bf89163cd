"""A response's events, with an end whatever becomes of the broker."""

import logging
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from contracts.broker import Broker
from contracts.errors import BrokerUnavailable, IlvrError, NotReady, ResponseNotFound
from contracts.events import Event, Failed, StepDelta, Terminal, fold
from contracts.jobs import Job
from contracts.responses import error_info

log = logging.getLogger(__name__)


async def follow_to_end(
    broker: Broker,
    job: Job,
    starting_after: int = -1,
    *,
    deltas: bool = True,
    on_text_gap: Callable[[float], None] = lambda gap_s: None,
) -> AsyncIterator[Event]:
    """``broker.follow``, whose last event is a terminal one also if the broker is lost or has lost the log.

    ``on_text_gap`` is told the seconds from one text delta to the next of the same step, as they are taken from here.

    The one that is made up here is in no log: who follows again later may find that the response went on.

    Without a terminal event it ends only where this process closed its broker, because it stops: the response goes on
    without it, and its client comes back, to another gateway.
    """
    last = starting_after
    text_at_s: float | None = None
    error: IlvrError
    try:
        async for event in broker.follow(job.response_id, starting_after=starting_after, deltas=deltas):
            last = event.sequence_number
            if isinstance(event, StepDelta) and isinstance(event.text, str):
                now_s = time.monotonic()
                if text_at_s is not None:
                    on_text_gap(now_s - text_at_s)
                text_at_s = now_s
            elif not isinstance(event, StepDelta):
                text_at_s = None
            yield event
            if isinstance(event, Terminal):
                return
        return
    except BrokerUnavailable as lost:
        error = lost
    except ResponseNotFound:
        error = BrokerUnavailable("The broker has lost this response. Send the request again.")
    log.warning("response %s: its events end here: %s", job.response_id, error)
    yield _failed(job, error, sequence_number=last + 1)


async def terminal_event(broker: Broker, job: Job) -> Terminal:
    """Waits for it. Raises ``NotReady``: this process stops before there is one."""
    async for event in follow_to_end(broker, job, deltas=False):
        if isinstance(event, Terminal):
            return event
    raise NotReady("This gateway is stopping. Send the request again, with the same Idempotency-Key if it had one.")


def _failed(job: Job, error: IlvrError, sequence_number: int) -> Failed:
    info = error_info(error)
    response = msgspec.structs.replace(fold(job, []), status="failed", finish_reason="error", error=info)
    return Failed(sequence_number=sequence_number, response_id=job.response_id, error=info, response=response)
