"""Clients that go away: a stream's response lives on for a grace, in case its reader comes back, to any gateway."""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from starlette.types import Message

from contracts.broker import SAY_AGAIN_S, Broker
from contracts.errors import BrokerUnavailable, ResponseNotFound
from contracts.jobs import Job

log = logging.getLogger(__name__)

# A gateway says so often which responses are read at it, and is believed for so long: one that died is soon forgotten.
TELL_EVERY_S = SAY_AGAIN_S
BELIEVED_S = 3 * TELL_EVERY_S
ASK_AGAIN_S = 1.0  # after the broker could not be reached


async def until_gone(receive: Callable[[], Awaitable[Message]]) -> None:
    """Returns when the client has closed the connection. The request body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Readers:
    """Counts who reads each response here, and cancels one that nobody has read for the grace, here or elsewhere.

    A gateway asks when its own last reader is gone; what the broker has heard of the others decides. So the gateway
    that lost the last reader of all is the one whose cancel goes through. Background jobs are of no concern to it.
    """

    def __init__(self, broker: Broker, grace_s: float) -> None:
        self._broker = broker
        self._grace_s = grace_s
        self._name = f"gateway-{secrets.token_hex(8)}"
        self._num_reading: Counter[str] = Counter()
        self._expiring: dict[str, asyncio.Task[None]] = {}
        self._untold: set[str] = set()
        self._wake_up = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._unheard_for: type[Exception] | None = None

    def join(self, job: Job) -> None:
        if job.background:
            return
        self._num_reading[job.response_id] += 1
        if job.response_id in self._expiring:
            self._expiring.pop(job.response_id).cancel()
        self._untold.add(job.response_id)
        self._wake_up.set()
        if self._telling is None:
            self._telling = asyncio.create_task(self._keep_telling(), name="tell who reads")

    def leave(self, job: Job, *, is_over: bool, grace_s: float | None = None) -> None:
        """``is_over``: the reader saw the terminal event. ``grace_s``: for this reader, if not that of a stream."""
        if job.background:
            return
        response_id = job.response_id
        self._num_reading[response_id] -= 1
        if self._num_reading[response_id]:
            return
        del self._num_reading[response_id]
        self._untold.discard(response_id)
        if not is_over:
            expire = self._expire(response_id, self._grace_s if grace_s is None else grace_s)
            self._expiring[response_id] = asyncio.create_task(expire)

    async def aclose(self) -> None:
        """Forget the graces that run; nothing is cancelled."""
        tasks = list(self._expiring.values())
        if self._telling is not None:
            tasks.append(self._telling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _expire(self, response_id: str, grace_s: float) -> None:
        await self._tell([response_id], for_s=grace_s)
        wait_s = grace_s
        try:
            with suppress(ResponseNotFound):  # it ended in the meantime, and long ago
                while True:
                    await asyncio.sleep(wait_s)
                    try:
                        wait_s = await self._broker.cancel_unread(response_id, reader=self._name)
                    except BrokerUnavailable as error:
                        log.warning("response %s is not cancelled yet: %s", response_id, error)
                        wait_s = ASK_AGAIN_S
                    if not wait_s:
                        return
        finally:
            if self._expiring.get(response_id) is asyncio.current_task():
                del self._expiring[response_id]

    async def _keep_telling(self) -> None:
        """Of a new reader at once, for it may have come from another gateway; of all once in a while, and soon after
        it was not heard, before others take what is read here for unread."""
        loop = asyncio.get_running_loop()
        due_at = loop.time() + TELL_EVERY_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    await self._wake_up.wait()
            self._wake_up.clear()
            if loop.time() >= due_at:
                due_at = loop.time() + TELL_EVERY_S
                self._untold.update(self._num_reading)
            untold, self._untold = self._untold, set()
            if untold and not await self._tell(untold, for_s=BELIEVED_S):
                due_at = min(due_at, loop.time() + ASK_AGAIN_S)

    async def _tell(self, response_ids: Iterable[str], *, for_s: float) -> bool:
        """Whether it was heard. The log says why not, once for each reason in turn, until it is."""
        try:
            await self._broker.note_reading(list(response_ids), reader=self._name, for_s=for_s)
        except BrokerUnavailable as error:
            if self._is_news(error):
                log.warning("the broker does not hear who reads, and is told again until it does: %s", error)
        except Exception as error:
            # A defect, and no reason to fall silent: all that is read here would be cancelled.
            if self._is_news(error):
                log.exception("the broker was not told who reads; this is tried again")
        else:
            self._unheard_for = None
            return True
        return False

    def _is_news(self, error: Exception) -> bool:
        """Whether the last word, if it was not heard, was so for another reason."""
        before, self._unheard_for = self._unheard_for, type(error)
        return before is not type(error)
