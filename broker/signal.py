"""A wake-up call for any number of waiting tasks."""

import asyncio


class Signal:
    """``asyncio.Condition`` without the lock: on one event loop nothing runs between a check and ``wait``."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all who wait now; those who wait from now on wait for the next call."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self) -> None:
        await self._event.wait()
