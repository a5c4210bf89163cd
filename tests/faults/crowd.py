"""A crowd of clients: at a fixed rate one more, and never more than so many at once."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence

import httpx

from tests.faults.client import SILENCE_S, Client
from tests.faults.record import Record, Request

_numbers = itertools.count(1)


def next_number() -> int:
    """No two requests of this process are alike."""
    return next(_numbers)


class Crowd:
    """``records`` are of those that have come to an end, one way or the other."""

    def __init__(
        self,
        urls: Sequence[str],
        make: Callable[[int], Request],
        *,
        in_flight: int,
        rate_per_s: float,
        patience_s: float,
    ) -> None:
        self._urls = urls
        self._make = make
        self._in_flight = in_flight
        self._rate_per_s = rate_per_s
        self._patience_s = patience_s
        self._clients: set[asyncio.Task[Record]] = set()
        self._defects: list[Exception] = []
        self.records: list[Record] = []
        self.most_in_flight = 0

    @property
    def num_in_flight(self) -> int:
        return len(self._clients)

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask for the length of the block; at its end, wait until every client has its answer, or has given up.

        Raises what a client raised: an answer that no client can make sense of.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=SILENCE_S, limits=limits) as http:
            arriving = asyncio.create_task(self._arrive(http))
            try:
                yield
            finally:
                arriving.cancel()
                await asyncio.wait([arriving])
                if not arriving.cancelled():
                    arriving.result()
                while self._clients:
                    await asyncio.wait(self._clients)
                if self._defects:
                    raise ExceptionGroup("clients", self._defects)

    async def until_full(self) -> None:
        while self.num_in_flight < self._in_flight and not self._defects:  # noqa: ASYNC110 - clients come and go
            await asyncio.sleep(0.02)

    async def _arrive(self, http: httpx.AsyncClient) -> None:
        """Who is due while as many ask as may does not come later."""
        began, num_due = time.monotonic(), 0
        while not self._defects:
            await asyncio.sleep(began + num_due / self._rate_per_s - time.monotonic())
            before, num_due = num_due, int((time.monotonic() - began) * self._rate_per_s) + 1
            for _ in range(min(num_due - before, self._in_flight - self.num_in_flight)):
                self._add(Client(http, self._urls, self._make(next_number()), patience_s=self._patience_s))

    def _add(self, client: Client) -> None:
        task = asyncio.create_task(client.run())
        self._clients.add(task)
        self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Record]") -> None:
        self._clients.discard(task)
        error = task.exception()
        if isinstance(error, Exception):
            self._defects.append(error)
        else:
            self.records.append(task.result())
