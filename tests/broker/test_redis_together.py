"""Calls of one moment in one pipeline: each has its own answer, and none falls with another."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError, ResponseError

from broker.redis.broker import RedisBroker
from broker.redis.together import Together
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer, fresh_prefix
from tests.broker.samples import image

MANY = 20


@pytest_asyncio.fixture
async def together(redis_server: RedisServer) -> AsyncIterator[Together]:
    server = _to(redis_server)
    yield server
    await server.aclose()


def _to(server: RedisServer) -> Together:
    return Together(Redis(connection_pool=BlockingConnectionPool.from_url(server.url, max_connections=64)))


def _num_connections(server: Together) -> int:
    pool = server.client.connection_pool
    return len(pool._available_connections) + len(pool._in_use_connections)


async def test_many_calls_of_one_moment_take_one_connection_and_each_has_its_answer(together: Together) -> None:
    answers = await asyncio.gather(*(together.execute("ECHO", str(n)) for n in range(MANY)))
    assert answers == [str(n).encode() for n in range(MANY)]
    assert _num_connections(together) == 1
    await asyncio.gather(*(together.execute_alone("ECHO", "x") for _ in range(MANY)))
    assert _num_connections(together) == MANY  # so the count above is one


async def test_what_redis_refuses_is_the_answer_to_one_call(together: Together) -> None:
    calls = (together.execute("ECHO", "before"), together.execute("NONSENSE"), together.execute("ECHO", "after"))
    before, error, after = await asyncio.gather(*calls, return_exceptions=True)
    assert (before, after) == (b"before", b"after")
    assert isinstance(error, ResponseError)
    with pytest.raises(ResponseError):
        await together.execute("NONSENSE")


async def test_a_connection_that_breaks_fails_all_that_it_carried_and_nothing_else(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        together = _to(server)
        server.pause()
        calls = [asyncio.create_task(together.execute("ECHO", str(n))) for n in range(MANY)]
        await asyncio.sleep(0.1)
        server.kill()
        failed = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, ConnectionError) for error in failed), failed
        server.start()
        assert await asyncio.gather(together.execute("ECHO", "a"), together.execute("ECHO", "b")) == [b"a", b"b"]
        await together.aclose()


async def test_who_is_cancelled_takes_no_other_call_along(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        together, key = _to(server), fresh_prefix()
        server.pause()
        calls = [asyncio.create_task(together.execute("INCR", key)) for _ in range(3)]
        await asyncio.sleep(0.1)  # they are sent
        calls[1].cancel()
        await asyncio.wait([calls[1]], timeout=1)
        assert calls[1].cancelled()
        server.resume()
        assert await asyncio.gather(calls[0], calls[2]) == [1, 3]  # what was sent is done
        await together.aclose()


async def test_what_is_cancelled_before_it_is_sent_is_never_done(together: Together) -> None:
    key = fresh_prefix()
    calls = [asyncio.create_task(together.execute("INCR", key)) for _ in range(3)]
    asyncio.get_running_loop().call_soon(calls[1].cancel)  # after each has asked, and before the pipeline goes
    assert (await asyncio.gather(*calls, return_exceptions=True))[::2] == [1, 2]
    assert calls[1].cancelled()


async def test_closing_tells_those_who_wait(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        together = _to(server)
        server.pause()
        calls = [asyncio.create_task(together.execute("ECHO", str(n))) for n in range(3)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await together.aclose()
            await asyncio.wait(calls)
        assert all(isinstance(call.exception(), ConnectionError) for call in calls)


async def test_pictures_travel_alone(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    execute = Together.execute

    async def watched(self: Together, *command: Any) -> Any:
        answer = await execute(self, *command)
        sizes.append(len(repr((command, answer))))
        return answer

    monkeypatch.setattr(Together, "execute", watched)
    broker, picture = RedisBroker(settings(redis_server)), image(b"p" * 100_000)
    try:
        await broker.put_image(picture)
        assert (await broker.get_image(picture.ref.id)).data == picture.data
    finally:
        await broker.aclose()
    assert sizes
    assert max(sizes) < 10_000
