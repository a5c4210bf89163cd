"""The terminal events that the broker writes itself, because no runner does."""

from collections.abc import Sequence

import msgspec

from contracts.errors import IlvrError
from contracts.events import Cancelled, Event, Failed, fold
from contracts.jobs import Job
from contracts.responses import FinishReason, Response, Status, error_info


def cancelled(job: Job, events: Sequence[Event], *, total_ms: float) -> Cancelled:
    """The end of a response that was cancelled while no runner worked on it."""
    return Cancelled(
        response_id=job.response_id, response=_ended(job, events, "cancelled", "cancelled", total_ms=total_ms)
    )


def failed(job: Job, events: Sequence[Event], error: IlvrError, *, total_ms: float) -> Failed:
    """The end of a response that nobody can finish."""
    info = error_info(error)
    response = msgspec.structs.replace(_ended(job, events, "failed", "error", total_ms=total_ms), error=info)
    return Failed(response_id=job.response_id, error=info, response=response)


def _ended(job: Job, events: Sequence[Event], status: Status, reason: FinishReason, *, total_ms: float) -> Response:
    so_far = fold(job, events)
    timings = msgspec.structs.replace(so_far.timings, total_ms=total_ms)
    return msgspec.structs.replace(so_far, status=status, finish_reason=reason, timings=timings)
