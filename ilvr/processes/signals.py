"""SIGINT and SIGTERM: of a process that loads a model, and of one that serves."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNAL_EXIT_BASE = 128


class StopSignals:
    """The first signal asks for an orderly end, the second for an end at once. To be made in the event loop."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    def stop(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()

    async def pause(self, seconds: float) -> None:
        """Sleep, unless a second signal comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.insisted.wait()


@contextlib.contextmanager
def signals_end_loading() -> Iterator[None]:
    """While the model loads, a signal ends the process and its children at once.

    An exception would not do: vLLM waits for its engine process in ways that an exception leaves waiting.
    """

    def end(number: int, frame: object) -> NoReturn:
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(SIGNAL_EXIT_BASE + number)

    before = {number: signal.signal(number, end) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
