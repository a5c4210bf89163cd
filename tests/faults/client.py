"""One client: asks once, follows to the end, and comes back through any gateway whenever it is cut off."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from tests.faults.record import Record, Request

SILENCE_S = 5.0  # several pings are due in this time: a connection that is silent for so long is dead
LONGEST_WAIT_S = 1.0


class Client:
    """The ``urls`` are those of the gateways. It gives up after ``patience_s``, and what it waits for is lost.

    leaves_after: of each connection, the events after which it leaves for another gateway.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        urls: Sequence[str],
        request: Request,
        *,
        patience_s: float,
        leaves_after: int | None = None,
    ) -> None:
        self._http = http
        self._urls = urls
        self._turn = request.number
        self._patience_s = patience_s
        self._leaves_after = leaves_after
        self.record = Record(request)

    async def run(self) -> Record:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                while not self.record.is_over:
                    await self._connect()
        except TimeoutError:
            pass  # the record has no end, which says it
        self.record.seconds = time.monotonic() - began
        return self.record

    async def _connect(self) -> None:
        """One connection, to the next gateway in turn."""
        self._turn += 1
        url = self._urls[self._turn % len(self._urls)]
        try:
            async with self._open(url) as response:
                if response.status_code == 200:
                    await self._read(response)
                else:
                    await self._refused(response)
        except httpx.TransportError:
            await asyncio.sleep(0.05 + 0.1 * random.random())

    def _open(self, url: str) -> Any:
        record = self.record
        if not record.events:
            headers = {"Idempotency-Key": record.request.key}
            return self._http.stream("POST", f"{url}/v1/reason", json=record.request.body, headers=headers)
        record.num_resumed += 1
        headers = {"Last-Event-ID": str(record.last_number)}
        return self._http.stream("GET", f"{url}/v1/reason/{record.events[0]['response_id']}/events", headers=headers)

    async def _read(self, response: httpx.Response) -> None:
        num_heard = 0
        async with aclosing(_events(response)) as events:
            async for event in events:
                self.record.hear(event)
                num_heard += 1
                if num_heard == self._leaves_after:
                    return

    async def _refused(self, response: httpx.Response) -> None:
        record = self.record
        if response.status_code == 204:
            record.faults.append("204 although the end was not told")
        body = await response.aread()
        code = json.loads(body)["error"]["code"] if body else str(response.status_code)
        if code == "response_not_found":
            record.forget()
            return
        record.refusals[code] += 1
        if response.status_code not in (429, 503):
            raise AssertionError(f"{record.request.key} was refused with {response.status_code}: {body!r}")
        asked_s = float(response.headers.get("retry-after", "1"))
        await asyncio.sleep(min(asked_s, LONGEST_WAIT_S) * (0.5 + random.random()))


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Those that arrived whole; pings are left out."""
    data = ""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
        elif not line and data:
            yield json.loads(data)
            data = ""
