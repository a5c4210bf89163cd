"""A runner's loops as a task beside the server."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import NoReturn

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def running(work: Coroutine[None, None, NoReturn]) -> AsyncIterator[asyncio.Task[NoReturn]]:
    """The runner's loops as a task that ends with the block. That it ends sooner is a defect, and is logged."""

    def report(task: asyncio.Task[NoReturn]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the runner stopped: %r", error, exc_info=error)

    task = asyncio.create_task(work, name="runner")
    task.add_done_callback(report)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
