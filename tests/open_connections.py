"""A test that leaves a connection open fails by its name.

Python warns of one only when it is freed, which is in whatever test runs then. So an event loop that is closed looks
after its connections first: what others have ended has a moment to be noticed, and what is open after that was left.
One that the loop does not know (in Python 3.11 what it is accepting while the server is closed) is freed at once, and
pytest's own warning comes in time.
"""

import asyncio
import gc
import time
from asyncio import sleep  # tests replace it in the module
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any

import pytest

NOTICED_S = 2.0
YOUNG = 1  # generation: what a test has just made; all would be a fifth of a second for each test

left_open: list[str] = []
_close = BaseSelectorEventLoop.close


def _open_transports(loop: Any) -> list[Any]:
    """Asyncio keeps a weak table of them, by file descriptor; one without a socket is closed."""
    return [transport for transport in list(loop._transports.values()) if transport._sock is not None]


def _close_and_look(loop: Any) -> None:
    if not loop.is_closed() and asyncio._get_running_loop() is None:
        give_up_at = time.monotonic() + NOTICED_S
        while _open_transports(loop) and time.monotonic() < give_up_at:
            loop.run_until_complete(sleep(0.001))
        for transport in _open_transports(loop):
            left_open.append(f"{transport!r} of {transport.get_protocol()!r}")
            transport.abort()
        loop.run_until_complete(sleep(0))
    _close(loop)
    gc.collect(YOUNG)


def watch() -> None:
    """Every loop of this process that is made of a selector, from now on."""
    pytest.MonkeyPatch().setattr(BaseSelectorEventLoop, "close", _close_and_look)
