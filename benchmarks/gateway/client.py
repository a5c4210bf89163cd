"""Many readers of streams in one process: what each event says of when it was due is held against when it came."""

import asyncio
import json
import time
from array import array
from typing import cast

BODY = json.dumps({"question": "Count.", "stream": True, "background": False}).encode()
REQUEST = (
    b"POST /v1/reason HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (len(BODY), BODY)
)
EVENT, NUMBER, TEXT = b"\nevent: step.delta\n", b"\nid: ", b'"text":"'
CONNECTING_AT_ONCE = 50


class Reader(asyncio.Protocol):
    """``late_s`` of every word; ``defects`` what came out of order, or an end that nobody asked for."""

    def __init__(self, late_s: "array[float]", defects: list[str]) -> None:
        self._late_s = late_s
        self._defects = defects
        self._left = b""
        self._last = -1
        self.num_words = 0
        self.begun = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does, not by its class
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        *events, self._left = (self._left + data).split(b"\n\n")
        for event in events:
            at = event.find(NUMBER)
            if at < 0:
                continue  # a ping
            number = int(event[at + len(NUMBER) : event.index(b"\n", at + 1)])
            if number != self._last + 1:
                self._defects.append(f"event {number} came where {self._last + 1} was due")
            self._last = number
            if EVENT in event:
                text = event.index(TEXT) + len(TEXT)
                self._late_s.append(now - float(event[text : event.index(b'"', text)]))
                self.num_words += 1
            elif b"\nevent: step.started\n" in event:
                self.begun.set_result(None)
            elif b"\nevent: response.failed\n" in event:
                self._defects.append(event.decode())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(ConnectionError(f"{error}: {self._left[:300]!r}"))


async def connect(port: int, count: int, late_s: "array[float]", defects: list[str]) -> list[Reader]:
    """Readers of as many streams, each begun and silent."""
    gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def one() -> Reader:
        async with gate:
            loop = asyncio.get_running_loop()
            _, reader = await loop.create_connection(lambda: Reader(late_s, defects), "127.0.0.1", port)
            await reader.begun
            return reader

    return list(await asyncio.gather(*(one() for _ in range(count))))
