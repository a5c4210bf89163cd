"""A response's events, with an end whatever becomes of the broker."""

import logging
from collections.abc import AsyncIterator

import msgspec

from contracts.broker import Broker
from contracts.errors import BrokerUnavailable, IlvrError, NotReady, ResponseNotFound
from contracts.events import Event, Failed, Terminal, fold
from contracts.jobs import Job
from contracts.responses import error_info

log = logging.getLogger(__name__)


async def follow_to_end(broker: Broker, job: Job, starting_after: int = -1) -> AsyncIterator[Event]:
    """``broker.follow``, whose last event is a terminal one also if the broker is lost or has lost the log.

    The one that is made up here is in no log: who follows again later may find that the response went on.

    Without a terminal event it ends only where this process closed its broker, because it stops: the response goes on
    without it, and its client comes back, to another gateway.
    """
    last = starting_after
    error: IlvrError
    try:
        async for event in broker.follow(job.response_id, starting_after=starting_after):
            last = event.sequence_number
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
    async for event in follow_to_end(broker, job):
        if isinstance(event, Terminal):
            return event
    raise NotReady("This gateway is stopping. Send the request again, with the same Idempotency-Key if it had one.")


def _failed(job: Job, error: IlvrError, sequence_number: int) -> Failed:
    info = error_info(error)
    response = msgspec.structs.replace(fold(job, []), status="failed", finish_reason="error", error=info)
    return Failed(sequence_number=sequence_number, response_id=job.response_id, error=info, response=response)
