"""Small valid things to send through a broker."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from contracts.broker import Broker, RunnerStatus
from contracts.events import Completed, Event, StepDelta, event_type
from contracts.jobs import ImageRef, Job, StoredImage
from contracts.responses import Response


class Clock:
    """Seconds that tests move."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def job(response_id: str, **fields: Any) -> Job:
    return Job(response_id=response_id, created_at=1_760_000_000, model="m", **{"question": "?", **fields})


def image(data: bytes) -> StoredImage:
    ref = ImageRef(id="img_" + hashlib.sha256(data).hexdigest(), width=2, height=3)
    return StoredImage(ref=ref, media_type="image/png", data=data)


def status(runner_id: str, *, is_ready: bool = True) -> RunnerStatus:
    return RunnerStatus(
        runner_id=runner_id,
        model="m",
        is_ready=is_ready,
        num_running=0,
        max_num_seqs=4,
        latent_size=8,
        latent_exit="learned",
        engine="none",
    )


def delta(response_id: str, text: str) -> StepDelta:
    return StepDelta(response_id=response_id, index=0, text=text)


def done(of: Job) -> Completed:
    response = Response(
        id=of.response_id,
        created_at=of.created_at,
        model=of.model,
        status="completed",
        finish_reason="stop",
        metadata=of.metadata,
    )
    return Completed(response_id=of.response_id, response=response)


async def read(broker: Broker, response_id: str, *, starting_after: int = -1, deltas: bool = True) -> list[Event]:
    return [event async for event in broker.follow(response_id, starting_after=starting_after, deltas=deltas)]


async def next_cancellation(cancellations: AsyncIterator[str]) -> str:
    return await anext(cancellations)


def types(events: Sequence[Event]) -> list[str]:
    """The part of each type after the dot: ``created``, ``delta``, …"""
    return [event_type(event).partition(".")[2] for event in events]
