"""Following a response, with a log and messages of the test's making."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from broker.redis import following
from broker.redis.following import follow
from broker.redis.news import News
from broker.redis.wakeups import Told
from contracts.errors import BrokerUnavailable
from contracts.events import Event, encode_event
from tests.broker.samples import delta, done, job

Page = tuple[list[Event], int, bool]


class Made:
    """A log of deltas and perhaps an end, and its channel. ``looked``: from where the log was read."""

    def __init__(self, num_events: int) -> None:
        self.num_events, self.is_closed = num_events, False
        self.looked: list[int] = []
        self.told = Told(SimpleNamespace(is_connected=True), News())  # type: ignore[arg-type]

    def channel(self, _: str) -> str:
        return "channel"

    async def page(self, _: str, position: int) -> Page:
        self.looked.append(position)
        told: list[Any] = [delta("resp_a", str(number)) for number in range(self.num_events)]
        if self.is_closed:
            told[-1] = done(job("resp_a"))
        told = [msgspec.structs.replace(event, sequence_number=number) for number, event in enumerate(told)]
        return told[position:], len(told), self.is_closed

    @asynccontextmanager
    async def listening(self, _: str, *, deltas: bool) -> AsyncIterator[Told]:
        assert deltas
        yield self.told

    def say(self, number: int, event: Event | None = None) -> None:
        part = self.told.news.hear(b"\n%d\n%s" % (number, encode_event(event or delta("resp_a", str(number)))))
        assert part is not None
        self.told.tell()

    def follow(self) -> AsyncIterator[Event]:
        return follow(self, self, "resp_a", 0, deltas=True, is_closed=lambda: False)  # type: ignore[arg-type]


async def test_late_messages_are_let_pass() -> None:
    """The log has told all of them already. One look makes sure of it, not one for each."""
    made = Made(10)
    events = made.follow()
    seen = [(await anext(events)).sequence_number for _ in range(10)]

    async def read_on() -> None:
        seen.extend([event.sequence_number async for event in events])

    reader = asyncio.create_task(read_on())
    async with asyncio.timeout(10):
        for number in range(1, 10):
            made.say(number)
            await asyncio.sleep(0.01)
        assert made.looked == [0]
        made.say(10, done(job("resp_a")))
        await reader
    assert seen == list(range(11))
    assert made.looked == [0]


async def test_messages_that_stay_behind_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that came back as it was before counts from there."""
    monkeypatch.setattr(following, "LATE_S", 0.1)
    made = Made(10)
    events = made.follow()
    for _ in range(10):
        await anext(events)
    waiting = asyncio.create_task(anext(events))
    await asyncio.sleep(0.01)
    made.num_events = 4
    made.say(3)
    with pytest.raises(BrokerUnavailable, match="lost this response"):
        await asyncio.wait_for(waiting, 2)
    assert made.looked == [0, 10]


async def test_an_end_in_the_place_of_another_event_is_no_end() -> None:
    """Redis came back without the last event, and somebody has closed the response since: who had seen that event
    would wait for an end that is never told."""
    made = Made(5)
    events = made.follow()
    for _ in range(5):
        await anext(events)
    waiting = asyncio.create_task(anext(events))
    await asyncio.sleep(0.01)
    made.is_closed = True
    made.told.num_vague += 1  # a new connection
    made.told.tell()
    with pytest.raises(BrokerUnavailable, match="lost this response"):
        await asyncio.wait_for(waiting, 2)
