"""Work that holds a thread, seen from an event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

T = TypeVar("T")


async def in_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """The same items, each as soon as it is there. One thread makes all of them, and does not wait for who takes them.

    A thread for each would cost as much as a token of a small model. Left early or cancelled, however often, it ends
    once the item that is being made is there: what makes them must not be given to another before. Close it if you
    leave it.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | None] = asyncio.Queue()
    is_left = threading.Event()

    def work() -> None:
        if is_left.is_set():  # it waited for a thread of the pool
            return
        for item in items:
            loop.call_soon_threadsafe(queue.put_nowait, item)
            if is_left.is_set():
                return

    working = asyncio.ensure_future(asyncio.to_thread(work))
    working.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (item := await queue.get()) is not None:
            yield item
        await working  # raises what stopped it
    finally:
        is_left.set()
        await _until_done(working)


async def _until_done(working: "asyncio.Future[None]") -> None:
    cancelled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError as error:
            cancelled = error
    if not working.cancelled():
        working.exception()  # of what nobody takes any more; asyncio would log it
    if cancelled is not None:
        raise cancelled
