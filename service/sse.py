"""Server-sent events, written by hand: each event is encoded once, straight from its struct to bytes.

``fastapi.sse`` would build and validate a model for each of them.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contracts.events import Event, encode_event, event_type
from contracts.jobs import Job
from service.disconnect import until_gone
from service.following import follow_to_end
from service.gateway import Gateway

PING = b": ping\n\n"

Write = Callable[[bytes], Awaitable[None]]


def encode_sse(event: Event) -> bytes:
    """``id``, ``event`` and one ``data`` line (JSON has no line break outside an escape)."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.sequence_number,
        event_type(event).encode(),
        encode_event(event),
    )


class JobStream(ABC, Response):
    """What becomes of jobs, told as it happens, until their end or until the client is gone.

    A client that reads slowly slows down only this stream: no event is taken from the log before the last one is on
    its way. One that does not read at all is dropped, see ``service.write_timeout``.

    grace_s: of a job whose client is gone, from then to its cancel; by default that of the settings.
    """

    media_type = "text/event-stream"

    def __init__(self, gateway: Gateway, jobs: Sequence[Job], grace_s: float | None = None) -> None:
        # The second header keeps a proxy from collecting the stream.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._gateway = gateway
        self._jobs = jobs
        self._grace_s = grace_s
        self._sent_at = 0.0

    @abstractmethod
    async def tell(self, write: Write) -> bool:
        """Everything, to the end. False: jobs may be left that are not over and that nobody reads here any longer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_over = False
        for job in self._jobs:
            self._gateway.readers.join(job)
        try:
            with self._gateway.metrics.readers.track_inprogress():
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                pump = asyncio.create_task(self._pump(send))
                gone = asyncio.create_task(until_gone(receive))
                try:
                    await self._ping_until_first(pump, gone, send)
                finally:
                    for task in (pump, gone):
                        task.cancel()
                    await asyncio.wait([pump, gone])
                if not pump.cancelled():
                    is_over = pump.result()  # raises what stopped it
                    await send({"type": "http.response.body", "body": b""})
        finally:
            for job in self._jobs:
                self._gateway.readers.leave(job, is_over=is_over, grace_s=self._grace_s)

    async def _pump(self, send: Send) -> bool:
        async def write(part: bytes) -> None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            self._sent_at = asyncio.get_running_loop().time()

        return await self.tell(write)

    async def _ping_until_first(self, pump: "asyncio.Task[bool]", gone: "asyncio.Task[None]", send: Send) -> None:
        """Returns when one of the tasks is done. Pings whenever nothing was sent for the interval."""
        loop = asyncio.get_running_loop()
        interval_s = self._gateway.settings.ping_interval_s
        self._sent_at = loop.time()
        while True:
            due_in_s = self._sent_at + interval_s - loop.time()
            if due_in_s <= 0:
                await send({"type": "http.response.body", "body": PING, "more_body": True})
                self._sent_at = loop.time()
                continue
            done, _ = await asyncio.wait({pump, gone}, timeout=due_in_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return


class EventStream(JobStream):
    """The events of a response after a sequence number."""

    def __init__(self, gateway: Gateway, job: Job, starting_after: int = -1) -> None:
        super().__init__(gateway, [job])
        self._starting_after = starting_after

    async def tell(self, write: Write) -> bool:
        gateway = self._gateway
        async for event in follow_to_end(
            gateway.broker, self._jobs[0], self._starting_after, on_text_gap=gateway.metrics.text_gap.observe
        ):
            await write(encode_sse(event))
        return True
