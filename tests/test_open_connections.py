"""Connections that a test leaves open are found when its event loop is closed, and those that are ending are not."""

import asyncio
import socket
import sys
from typing import Any

import pytest

from tests.open_connections import left_open


async def _both_ends() -> tuple[asyncio.StreamWriter, asyncio.StreamWriter]:
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    far = await accepted
    server.close()
    return writer, far


def test_one_that_nobody_closed_is_told_of_and_closed() -> None:
    async def close_one() -> asyncio.StreamWriter:
        writer, far = await _both_ends()
        writer.close()
        return far

    far = asyncio.run(close_one())
    found = [left_open.pop() for _ in range(len(left_open))]
    assert len(found) == 1
    assert "_SelectorSocketTransport" in found[0]
    assert far.is_closing()


def test_one_that_has_just_been_closed_is_not() -> None:
    async def close_both() -> None:
        for writer in await _both_ends():
            writer.close()

    asyncio.run(close_both())
    assert not left_open


def test_one_that_the_loop_does_not_know_is_freed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", warned.append)

    async def leave_in_a_cycle() -> None:
        cycle: list[Any] = [socket.socket()]
        cycle.append(cycle)

    asyncio.run(leave_in_a_cycle())
    assert ["unclosed <socket" in str(one.exc_value) for one in warned] == [True]
