"""Requests at a fixed rate, whatever becomes of them: whole answers, streams, background, pictures, and bad manners."""

import asyncio
import itertools
import json
import os
import time
from collections import Counter
from typing import Any

import httpx

from tests.service.helpers import base64_image

QUESTION = "Find a safe path from S to G. " * 300


class Load:
    """``outcomes`` counts what clients saw."""

    def __init__(self, client: httpx.AsyncClient, per_s: float) -> None:
        self._client = client
        self._per_s = per_s
        self._tasks: set[asyncio.Task[None]] = set()
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        manners = itertools.cycle(
            [self._wait, self._stream, self._ask_twice, self._wait_with_picture, self._leave, self._stream, self._later]
        )
        for number in itertools.count():
            due_at = began + number / self._per_s
            if due_at > began + seconds:
                break
            await asyncio.sleep(max(due_at - loop.time(), 0))
            self._begin(next(manners)(number))
            if number % 200 == 0:
                self._begin(self._read_nothing())
        await asyncio.gather(*self._tasks)

    def _begin(self, request: Any) -> None:
        task = asyncio.create_task(request)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, fields: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
        began = time.monotonic()
        answer = await self._client.post("/v1/reason", json={"question": QUESTION, **fields}, headers=headers)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.outcomes[str(answer.status_code)] += 1
        return answer

    async def _wait(self, number: int) -> None:
        await self._post({"metadata": {"number": str(number)}})

    async def _wait_with_picture(self, number: int) -> None:
        await self._post({"images": [base64_image(_bitmap())]})

    async def _ask_twice(self, number: int) -> None:
        headers = {"Idempotency-Key": f"key-{number}"}
        await asyncio.gather(self._post({}, headers), self._post({"stream": True}, headers))

    async def _later(self, number: int) -> None:
        answer = await self._post({"background": True})
        if answer.status_code == 200:
            await self._client.get(f"/v1/reason/{answer.json()['id']}/events")

    async def _stream(self, number: int) -> None:
        answer = await self._post({"stream": True})
        if answer.status_code == 200:
            self.outcomes[answer.text.rpartition("event: ")[2].partition("\n")[0]] += 1

    async def _leave(self, number: int) -> None:
        async with self._client.stream("POST", "/v1/reason", json={"question": QUESTION, "stream": True}) as answer:
            self.outcomes[str(answer.status_code)] += 1
            async for _ in answer.aiter_lines():
                break

    async def _read_nothing(self) -> None:
        """It stays until the server has had enough of it, or the load is over."""
        _, writer = await asyncio.open_connection(self._client.base_url.host, self._client.base_url.port, limit=1)
        body = json.dumps({"question": QUESTION, "stream": True}).encode()
        writer.write(
            b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        await asyncio.sleep(3)
        writer.transport.abort()


def _bitmap(side: int = 60) -> bytes:
    """A BMP file of noise, another one each time; made without much work."""
    row = side * 3
    size = 54 + row * side
    head = b"BM" + size.to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    head += side.to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    return head + os.urandom(row * side)
