"""Jobs that wait for a runner, and runners that wait for a job."""

import asyncio
from collections import deque
from collections.abc import Iterator

from broker.log import ResponseLog
from contracts.broker import BrokerClosed


class Dispatch:
    """First come, first served. ``room`` is what runners have said they could take and have not been given yet."""

    def __init__(self) -> None:
        self._waiting: deque[ResponseLog] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()
        # Kept between two calls of ``take``: a runner that got less than it had room for will be back at once, and
        # a job that it can start then does not count as waiting.
        self._room: dict[str, int] = {}
        self._is_closed = False

    def __iter__(self) -> Iterator[ResponseLog]:
        return iter(tuple(self._waiting))

    @property
    def num_ahead(self) -> int:
        """How many jobs a new one would have to wait for; negative if some runner has room for it."""
        return len(self._waiting) - sum(self._room.values())

    def offer(self, log: ResponseLog, *, is_first: bool = False) -> None:
        if is_first:
            self._waiting.appendleft(log)
        else:
            self._waiting.append(log)
        self._wake_taker()

    def withdraw(self, log: ResponseLog) -> None:
        self._waiting.remove(log)

    async def take(self, runner_id: str, room: int) -> list[ResponseLog]:
        """At least one job and at most ``room``. Raises ``BrokerClosed``."""
        if room < 1:
            raise ValueError(f"a runner takes when it has room, not with room for {room}")
        self._room[runner_id] = room
        while not self._waiting:
            if self._is_closed:
                raise BrokerClosed
            taker = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                self.forget_runner(runner_id)
                if taker in self._takers:
                    self._takers.remove(taker)
                self._wake_taker()  # the wake-up that this call may have had goes to another
                raise
        taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        self._room[runner_id] = room - len(taken)
        self._wake_taker()
        return taken

    def forget_runner(self, runner_id: str) -> None:
        self._room.pop(runner_id, None)

    def close(self) -> None:
        self._is_closed = True
        while self._takers:
            self._wake(self._takers.popleft())

    def _wake_taker(self) -> None:
        if self._waiting and self._takers:
            self._wake(self._takers.popleft())

    @staticmethod
    def _wake(taker: "asyncio.Future[None]") -> None:
        if not taker.done():
            taker.set_result(None)
