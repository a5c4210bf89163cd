"""Cancellations that redis-py would lose.

It sends inside ``asyncio.wait_for``, which in Python 3.11 forgets a cancellation that comes just as the work is done
(python/cpython issue 86296). The task would go on, and whoever waits for its end would wait for ever.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def heeding(work: Awaitable[Result]) -> Result:
    """The result of ``work``; raises ``CancelledError`` if this task was cancelled meanwhile, whatever came of it."""
    task = asyncio.current_task()
    assert task is not None
    num_before = task.cancelling()
    try:
        result = await work
    except Exception as error:
        if task.cancelling() > num_before:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > num_before:
        raise asyncio.CancelledError
    return result
