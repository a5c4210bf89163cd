"""Clients that go away: a stream's response lives on for a short grace, in case its reader comes back."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.types import Message

from contracts.broker import Broker
from contracts.errors import ResponseNotFound


async def until_gone(receive: Callable[[], Awaitable[Message]]) -> None:
    """Returns when the client has closed the connection. The request body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Readers:
    """Counts who reads each response, and cancels a response that nobody has read for the grace."""

    def __init__(self, broker: Broker, grace_s: float) -> None:
        self._broker = broker
        self._grace_s = grace_s
        self._num_reading: Counter[str] = Counter()
        self._expiring: dict[str, asyncio.Task[None]] = {}

    def join(self, response_id: str) -> None:
        self._num_reading[response_id] += 1
        expiring = self._expiring.pop(response_id, None)
        if expiring is not None:
            expiring.cancel()

    def leave(self, response_id: str, *, is_over: bool) -> None:
        """``is_over``: the reader saw the terminal event, or has cancelled the response itself."""
        self._num_reading[response_id] -= 1
        if self._num_reading[response_id]:
            return
        del self._num_reading[response_id]
        if not is_over:
            self._expiring[response_id] = asyncio.create_task(self._expire(response_id))

    async def aclose(self) -> None:
        """Forget the graces that run; nothing is cancelled."""
        tasks = list(self._expiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _expire(self, response_id: str) -> None:
        await asyncio.sleep(self._grace_s)
        self._expiring.pop(response_id, None)
        with suppress(ResponseNotFound):  # it ended in the meantime, and long ago
            await self._broker.cancel(response_id)
