"""A wake-up call for any number of waiting tasks."""

import asyncio


class Signal:
    """``asyncio.Condition`` without the lock: on one event loop nothing runs between a check and ``wait``."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all who wait now; those who wait from now on wait for the next call."""
        for future in self._waiting:
            if not future.done():  # it is once its task was cancelled, which will take it out
                future.set_result(None)

    async def wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.remove(future)
