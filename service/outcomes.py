"""Counts how each response ends, whether or not a client is still there to see it."""

import asyncio
import time

from contracts.broker import Broker
from contracts.events import Cancelled, Completed, Failed, Incomplete, StepStarted
from service.errors import ERROR_BY_CODE, INTERNAL_CODE
from service.metrics import GatewayMetrics


class Outcomes:
    """One task per response that this gateway submitted; it ends with the response."""

    def __init__(self, broker: Broker, metrics: GatewayMetrics) -> None:
        self._broker = broker
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, response_id: str) -> None:
        task = asyncio.create_task(self._watch(response_id, time.monotonic()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, response_id: str, submitted_at: float) -> None:
        is_first_step_seen = False
        with self._metrics.inflight.track_inprogress():
            async for event in self._broker.follow(response_id):
                match event:
                    case StepStarted() if not is_first_step_seen:
                        is_first_step_seen = True
                        self._metrics.time_to_first_step.observe(time.monotonic() - submitted_at)
                    case Completed():
                        self._count("ok")
                    case Incomplete():
                        self._count("incomplete")
                    case Cancelled():
                        self._count("cancelled")
                    case Failed():
                        # A label set is closed: a code that is not in the tree does not get a label of its own.
                        self._count(event.error.code if event.error.code in ERROR_BY_CODE else INTERNAL_CODE)
                    case _:
                        pass
        self._metrics.response_time.observe(time.monotonic() - submitted_at)

    def _count(self, outcome: str) -> None:
        self._metrics.requests.labels(outcome=outcome).inc()
