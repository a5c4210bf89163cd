"""Counts what becomes of each response, whether or not a client is still there to see it."""

import asyncio
import time

from contracts.broker import Broker
from contracts.errors import BrokerUnavailable, ResponseNotFound
from contracts.events import Cancelled, Completed, Event, Failed, Incomplete, InProgress, Restarted, StepStarted
from service.errors import ERROR_BY_CODE, INTERNAL_CODE
from service.metrics import GatewayMetrics


class Outcomes:
    """One task per response that this gateway submitted; it ends with the response."""

    def __init__(self, broker: Broker, metrics: GatewayMetrics) -> None:
        self._broker = broker
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, response_id: str) -> None:
        task = asyncio.create_task(self._watch(response_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, response_id: str) -> None:
        watch = _Watch(self._metrics)
        try:
            async for event in self._broker.follow(response_id, deltas=False):
                watch.see(event)
        except (BrokerUnavailable, ResponseNotFound) as error:  # how it ends will not be known here
            self._metrics.responses.labels(outcome=error.code).inc()
        finally:
            watch.close()


class _Watch:
    """One response, from its submission."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._submitted_at = time.monotonic()
        self._is_waiting = False
        self._is_first_step_seen = False
        metrics.in_flight.inc()
        self._wait(True)

    def see(self, event: Event) -> None:
        match event:
            case StepStarted():
                if not self._is_first_step_seen:
                    self._is_first_step_seen = True
                    self._metrics.time_to_first_step.observe(time.monotonic() - self._submitted_at)
            case InProgress():
                self._wait(False)
                self._metrics.queue_time.observe(event.queue_ms / 1000)
            case Restarted():
                self._wait(True)
                self._metrics.restarts.inc()
            case Completed() | Incomplete() | Cancelled():
                self._end(event.response.status)
            case Failed():
                # A label set is closed: a code that is not in the tree does not get a label of its own.
                self._end(event.error.code if event.error.code in ERROR_BY_CODE else INTERNAL_CODE)
            case _:
                pass

    def close(self) -> None:
        """It ended, or nobody watches any longer."""
        self._wait(False)
        self._metrics.in_flight.dec()

    def _end(self, outcome: str) -> None:
        self._metrics.responses.labels(outcome=outcome).inc()
        self._metrics.response_time.observe(time.monotonic() - self._submitted_at)

    def _wait(self, is_waiting: bool) -> None:
        if is_waiting != self._is_waiting:
            self._is_waiting = is_waiting
            self._metrics.waiting.inc(1 if is_waiting else -1)
