"""One pub/sub connection for all who wait in this process.

A message of a response's channel holds its new events; another says only that there is something to look for. One that
is lost costs time, not events: who waits looks by itself now and then.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from broker.redis.cancellation import heeding
from broker.redis.link import MAYBE_UNREACHABLE, Link, is_unreachable
from broker.redis.news import News
from broker.signal import Signal

log = logging.getLogger(__name__)

POLL_S = 5.0  # while messages come
POLL_WITHOUT_S = 0.5  # while they cannot
PING_EVERY_S = 3.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0


class Told:
    """What has been told. ``num_told`` only grows, and so does ``num_vague``, of what did not say what there is."""

    __slots__ = ("_changed", "_wakeups", "news", "num_told", "num_vague")

    def __init__(self, wakeups: "Wakeups", news: News) -> None:
        self._wakeups = wakeups
        self._changed = Signal()
        self.news = news
        self.num_told = 0
        self.num_vague = 0

    def tell(self) -> None:
        self.num_told += 1
        self._changed.notify()

    async def wait_beyond(self, num_told: int, *, at_most_s: float = POLL_S) -> None:
        """Returns when more has been told, or after a while in any case."""
        timeout_s = min(at_most_s, POLL_S if self._wakeups.is_connected else POLL_WITHOUT_S)
        if self.num_told == num_told:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()


class Channel:
    """One name. ``advances``: without what was said of deltas alone."""

    __slots__ = ("_news", "advances", "everything", "num_readers")

    def __init__(self, wakeups: "Wakeups") -> None:
        self._news = News()
        self.everything = Told(wakeups, self._news)
        self.advances = Told(wakeups, self._news)
        self.num_readers = 0

    def tell(self, message: bytes = b"") -> None:
        part = self._news.hear(message)
        for told in (self.everything, self.advances):
            told.num_vague += part is None
            if part is None or part.has_more or told is self.everything:
                told.tell()


class Wakeups:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._channels: dict[bytes, Channel] = {}
        self._pubsub: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()  # one that fails connects anew, so nothing may be closed meanwhile
        self._has_channels = asyncio.Event()
        self._is_closed = False
        self.is_connected = False

    @asynccontextmanager
    async def listening(self, name: str, *, deltas: bool = True) -> AsyncIterator[Told]:
        """It is told of the beginning of its subscription too, so who looks once before misses nothing. Without
        ``deltas`` it is not told of these."""
        key = name.encode()
        channel = self._channels.get(key)
        is_new = channel is None
        if channel is None:
            channel = self._channels[key] = Channel(self)
        channel.num_readers += 1
        try:
            if is_new:
                self._has_channels.set()
                if self._reader is None and not self._is_closed:
                    self._reader = asyncio.create_task(self._read(), name="broker wake-ups")
                await self._send("subscribe", key)
            yield channel.everything if deltas else channel.advances
        finally:
            channel.num_readers -= 1
            if not channel.num_readers:
                del self._channels[key]
                if not self._channels:
                    self._has_channels.clear()
                await self._send("unsubscribe", key)

    def tell_all(self) -> None:
        for channel in tuple(self._channels.values()):
            channel.tell()

    async def aclose(self) -> None:
        self._is_closed = True
        self.tell_all()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _send(self, command: str, key: bytes) -> None:
        """Where it cannot be sent, the reader notices too, and subscribes to all anew."""
        async with self._sending:  # also if a connection is being made: it may be too late for its subscriptions
            if self.is_connected:
                try:
                    await heeding(getattr(self._pubsub, command)(key))
                except MAYBE_UNREACHABLE as error:
                    if not is_unreachable(error):
                        raise
                    self.is_connected = False

    async def _read(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            await self._has_channels.wait()
            try:
                async with self._connection() as pubsub:
                    pause_s = FIRST_PAUSE_S
                    await self._read_messages(pubsub)
            except Exception as error:  # whatever it is: without this task everybody would wait for the next look
                if not is_unreachable(error):  # else the line in the log is for calls that fail
                    log.exception("messages could not be read; this is tried again")
            self.tell_all()  # whatever was told meanwhile
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        client = await self._link.subscriber()
        self._pubsub = client.pubsub()
        try:
            async with self._sending:  # whoever comes meanwhile sends after it
                await heeding(self._pubsub.connect())
                if self._channels:
                    await heeding(self._pubsub.subscribe(*self._channels))
                self.is_connected = True
            yield self._pubsub
        finally:
            self.is_connected = False
            async with self._sending:
                await self._pubsub.aclose()

    async def _read_messages(self, pubsub: Any) -> None:
        """Until the connection is lost. A ping notices one that is lost without a word."""
        is_asked = False
        while self.is_connected:
            message = await heeding(pubsub.get_message(timeout=PING_EVERY_S))
            if message is None:
                if is_asked:
                    return
                is_asked = True
                if pubsub.subscribed:
                    await heeding(pubsub.ping())
                continue
            is_asked = False
            channel = self._channels.get(message["channel"] or b"")
            if channel is not None:
                channel.tell(message["data"] if message["type"] == "message" else b"")
