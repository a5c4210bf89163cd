"""Jobs that wait for a runner, and runners that wait for a job."""

import asyncio
from collections.abc import Iterator

from broker.affinity import Affinity
from broker.log import ResponseLog
from broker.queue import FairQueue
from contracts.broker import BrokerClosed

Taker = tuple[str, "asyncio.Future[None]"]


class Dispatch:
    """``room`` is what runners have said they could take and have not been given yet."""

    def __init__(self) -> None:
        self._waiting = FairQueue()
        self._takers: list[Taker] = []  # in the order in which they came
        # Kept between two calls of ``take``: a runner that got less than it had room for will be back at once, and
        # a job that it can start then does not count as waiting.
        self._room: dict[str, int] = {}
        self._affinity = Affinity()
        self._is_closed = False

    def __iter__(self) -> Iterator[ResponseLog]:
        return iter(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def num_ahead(self) -> int:
        """How many jobs wait beyond what there is room for; negative if some runner has room for one more."""
        return len(self._waiting) - sum(self._room.values())

    @property
    def num_bytes(self) -> int:
        """Of all that wait."""
        return self._waiting.num_bytes

    def has_any_of(self, owner: str) -> bool:
        """Whether a job of this owner waits."""
        return self._waiting.has_any_of(owner)

    def position_for(self, owner: str) -> int:
        """Of the next job of this owner among those that wait, from 1."""
        return max(self._waiting.num_ahead_of(owner) - sum(self._room.values()), 0) + 1

    def offer(self, log: ResponseLog, *, is_first: bool = False) -> None:
        self._waiting.push(log, is_first=is_first)
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
            taker = (runner_id, asyncio.get_running_loop().create_future())
            self._takers.append(taker)
            try:
                await taker[1]
            except asyncio.CancelledError:
                self._room.pop(runner_id, None)
                if taker in self._takers:
                    self._takers.remove(taker)
                self._wake_taker()  # the wake-up that this call may have had goes to another
                raise
        taken = [self._waiting.pop() for _ in range(min(room, len(self._waiting)))]
        self._room[runner_id] = room - len(taken)
        self._affinity.note(runner_id, (image.id for log in taken for image in log.job.images))
        self._wake_taker()
        return taken

    def forget_room(self, runner_id: str) -> None:
        """It says that it will not be back at once."""
        self._room.pop(runner_id, None)

    def forget_runner(self, runner_id: str) -> None:
        self.forget_room(runner_id)
        self._affinity.forget_runner(runner_id)

    def close(self) -> None:
        self._is_closed = True
        while self._takers:
            self._wake(self._takers[0])

    def _wake_taker(self) -> None:
        """Of the runners that wait, the one that has seen the next job's images, else the one that waits longest."""
        if self._waiting and self._takers:
            image_ids = [image.id for image in self._waiting.peek().job.images]
            knowing = (taker for taker in self._takers if self._affinity.knows_any(taker[0], image_ids))
            self._wake(next(knowing, self._takers[0]))

    def _wake(self, taker: Taker) -> None:
        self._takers.remove(taker)
        if not taker[1].done():
            taker[1].set_result(None)
