"""Server-sent events, written by hand: each event is encoded once, straight from its struct to bytes.

``fastapi.sse`` would build and validate a model for each of them.
"""

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contracts.events import Event, encode_event, event_type
from contracts.jobs import Job
from service.disconnect import until_gone
from service.following import follow_to_end
from service.gateway import Gateway

PING = b": ping\n\n"


def encode_sse(event: Event) -> bytes:
    """``id``, ``event`` and one ``data`` line (JSON has no line break outside an escape)."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.sequence_number,
        event_type(event).encode(),
        encode_event(event),
    )


class EventStream(Response):
    """The events of a response after a sequence number, until the terminal one or until the client is gone.

    A client that reads slowly slows down only this stream: no event is taken from the log before the last one is on
    its way. One that does not read at all is dropped, see ``service.write_timeout``.
    """

    media_type = "text/event-stream"

    def __init__(self, gateway: Gateway, job: Job, starting_after: int = -1) -> None:
        # The second header keeps a proxy from collecting the stream.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._gateway = gateway
        self._job = job
        self._starting_after = starting_after
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_over = False
        self._gateway.readers.join(self._job)
        try:
            with self._gateway.metrics.readers.track_inprogress():
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                pump = asyncio.create_task(self._pump(send))
                gone = asyncio.create_task(until_gone(receive))
                try:
                    await self._ping_until_first(pump, gone, send)
                    is_over = pump.done() and not pump.cancelled() and pump.exception() is None
                finally:
                    for task in (pump, gone):
                        task.cancel()
                    await asyncio.wait([pump, gone])
                if is_over:
                    await send({"type": "http.response.body", "body": b""})
                elif not pump.cancelled():
                    pump.result()  # raises what stopped it
        finally:
            self._gateway.readers.leave(self._job, is_over=is_over)

    async def _pump(self, send: Send) -> None:
        async for event in follow_to_end(self._gateway.broker, self._job, self._starting_after):
            await send({"type": "http.response.body", "body": encode_sse(event), "more_body": True})
            self._sent_at = asyncio.get_running_loop().time()

    async def _ping_until_first(self, pump: "asyncio.Task[None]", gone: "asyncio.Task[None]", send: Send) -> None:
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
