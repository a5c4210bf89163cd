"""Who reads cannot say so while Redis is away, and is given time to say it again."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from broker.redis import broker as module
from broker.redis.broker import RedisBroker
from contracts.errors import BrokerUnavailable
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import job, types

UNHEARD_S = 1.5
WORD_S = 0.3
AWAY_S = 1.5  # longer than the word is worth, and than it takes a process to notice by its sweeps


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", is_persistent=True, options=("--appendfsync", "always")) as server:
        yield server


@pytest.mark.parametrize("asks_meanwhile", [True, False])
async def test_a_word_that_ran_out_while_redis_was_away_can_be_said_again(
    asks_meanwhile: bool, durable: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a gateway that asked nothing meanwhile, and where its first call is the first that goes through."""
    monkeypatch.setattr(module, "UNHEARD_S", UNHEARD_S)
    of = settings(durable)
    async with aclosing(RedisBroker(of)) as left, aclosing(RedisBroker(of)) as reading:
        await left.submit(job("resp_a"))
        await reading.note_reading(["resp_a"], reader="g2", for_s=WORD_S)
        durable.stop()
        asking = asyncio.create_task(left.cancel_unread("resp_a", reader="g1")) if asks_meanwhile else None
        await asyncio.sleep(AWAY_S)
        durable.start()
        if asking is not None:
            with pytest.raises(BrokerUnavailable):
                await asking
        wait_s = await left.cancel_unread("resp_a", reader="g1")
        assert 0 < wait_s <= UNHEARD_S
        await reading.note_reading(["resp_a"], reader="g2", for_s=30.0)
        async with asyncio.timeout(20.0):
            while wait_s <= UNHEARD_S:  # then it is the other's word
                await asyncio.sleep(wait_s)
                wait_s = await left.cancel_unread("resp_a", reader="g1")
        assert types(await left.events("resp_a")) == ["created", "queued"]
        await reading.note_reading(["resp_a"], reader="g2", for_s=0.0)
        assert await left.cancel_unread("resp_a", reader="g1") == 0
        assert types(await left.events("resp_a"))[-1] == "cancelled"
