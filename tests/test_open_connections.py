"""Connections that a test leaves open are found when its event loop is closed, and those that are ending are not."""

import asyncio

from tests.open_connections import left_open


async def _connection() -> tuple[asyncio.Server, asyncio.StreamWriter, asyncio.Future[asyncio.StreamWriter]]:
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    await accepted
    server.close()
    return server, writer, accepted


def test_one_that_nobody_closed_is_told_of_and_closed() -> None:
    async def leave_open() -> asyncio.StreamWriter:
        _, writer, accepted = await _connection()
        writer.close()
        return accepted.result()

    writer = asyncio.run(leave_open())
    found = [left_open.pop() for _ in range(len(left_open))]
    assert len(found) == 1
    assert "_SelectorSocketTransport" in found[0]
    assert writer.is_closing()


def test_one_that_has_just_been_closed_is_not() -> None:
    async def close_both() -> None:
        _, writer, accepted = await _connection()
        writer.close()
        accepted.result().close()

    asyncio.run(close_both())
    assert not left_open
