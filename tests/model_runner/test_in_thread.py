"""Items of a thread reach the loop in order, and the thread never outlives who takes them."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from model_runner.engine.in_thread import in_thread


def slowly(made: list[int], count: int, pause_s: float = 0.02) -> Iterator[int]:
    for number in range(count):
        time.sleep(pause_s)
        made.append(number)
        yield number


async def test_all_in_order_and_in_one_thread() -> None:
    threads = set()

    def items() -> Iterator[int]:
        for number in range(100):
            threads.add(threading.get_ident())
            yield number

    assert [item async for item in in_thread(items())] == [*range(100)]
    assert len(threads - {threading.get_ident()}) == len(threads) == 1


async def test_who_is_slow_gets_all() -> None:
    taken = []
    async for item in in_thread(slowly([], 5, 0.0)):
        await asyncio.sleep(0.01)
        taken.append(item)
    assert taken == [*range(5)]


async def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    taken = in_thread(items())
    assert await anext(taken) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(taken)


async def test_left_early_it_makes_at_most_what_was_begun() -> None:
    made: list[int] = []
    async with aclosing(in_thread(slowly(made, 1000))) as items:
        async for _ in items:
            break
    num_made = len(made)
    assert num_made <= 3
    await asyncio.sleep(0.1)
    assert len(made) == num_made


@pytest.mark.parametrize("num_cancels", [1, 2, 3])
async def test_cancelled_it_waits_for_the_thread(num_cancels: int) -> None:
    made: list[int] = []

    async def take() -> None:
        async with aclosing(in_thread(slowly(made, 1000, 0.2))) as items:
            async for _ in items:
                pass

    taking = asyncio.create_task(take())
    await asyncio.sleep(0.25)  # in the middle of the second
    for _ in range(num_cancels):
        taking.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert len(made) == 2
    await asyncio.sleep(0.5)
    assert len(made) == 2


async def test_an_error_after_it_was_left_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    def items() -> Iterator[int]:
        yield 1
        time.sleep(0.1)
        raise ValueError("broken")

    async with aclosing(in_thread(items())) as taken:
        assert await anext(taken) == 1
    gc.collect()
    await asyncio.sleep(0)
    assert not caplog.records
