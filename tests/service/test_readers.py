"""What gateways tell the broker of their readers, when the broker cannot hear them or something is wrong with it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from broker.redis import broker as redis_broker
from broker.redis import link
from broker.redis.broker import RedisBroker
from contracts.errors import BrokerUnavailable
from service import disconnect
from service.disconnect import Readers
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import job, read, types
from tests.service.conftest import until

GRACE_S = 0.3
READ = job("resp_a")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", is_persistent=True, options=("--appendfsync", "always")) as server:
        yield server


@asynccontextmanager
async def readers_of(broker: RedisBroker | EmbeddedBroker) -> AsyncIterator[Readers]:
    """A gateway's, until it and its broker are closed."""
    readers = Readers(broker, GRACE_S)
    yield readers
    await readers.aclose()
    await broker.aclose()


async def test_what_is_read_at_another_gateway_outlives_an_outage_that_is_longer_than_its_word(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first gateway asks for the end as often as it can; the second says its word only once in a while."""
    for module, name, value in (
        (disconnect, "TELL_EVERY_S", 1.0),
        (disconnect, "BELIEVED_S", 1.5),
        (disconnect, "ASK_AGAIN_S", 0.05),
        (redis_broker, "UNHEARD_S", 2.0),
        (link, "RETRY_S", 0.2),
    ):
        monkeypatch.setattr(module, name, value)
    of = settings(redis, BrokerLimits(no_runner_grace_s=60.0))
    first, second = RedisBroker(of), RedisBroker(of)
    async with readers_of(first) as left, readers_of(second) as reading:
        await first.submit(READ)
        left.join(READ)
        left.leave(READ, is_over=False)
        reading.join(READ)
        await asyncio.sleep(GRACE_S)
        redis.stop()
        await asyncio.sleep(2.5)
        redis.start()
        await asyncio.sleep(4.0)  # twice as long as the first gateway waits for words
        assert types(await first.events("resp_a")) == ["created", "queued"]
        reading.leave(READ, is_over=False)
        assert types(await asyncio.wait_for(read(first, "resp_a"), 10.0))[-1] == "cancelled"


class Hearing(EmbeddedBroker):
    """Counts what it is told of; ``fail`` may raise first."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: Callable[[], None] = lambda: None
        self.num_asked = 0
        self.heard: list[str] = []

    async def note_reading(self, response_ids: Sequence[str], *, reader: str, for_s: float) -> None:
        self.num_asked += 1
        self.fail()
        self.heard += response_ids


def away() -> None:
    raise BrokerUnavailable("The broker cannot be reached.")


def defective() -> None:
    raise LookupError("a defect")


async def test_a_defect_during_an_outage_is_told_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service")
    monkeypatch.setattr(disconnect, "ASK_AGAIN_S", 0.02)
    broker = Hearing()
    async with readers_of(broker) as readers:
        for number, (fail, logged) in enumerate([(away, ["WARNING"]), (defective, ["WARNING", "ERROR"])]):
            broker.fail = fail
            asked = broker.num_asked
            readers.join(job(f"resp_{number}"))
            await until(lambda asked=asked: broker.num_asked > asked + 2, timeout_s=disconnect.TELL_EVERY_S / 2)
            assert [record.levelname for record in caplog.records] == logged


@pytest.mark.parametrize(("fail", "logged"), [(away, "WARNING"), (defective, "ERROR")])
async def test_who_was_not_heard_says_it_again_soon(
    fail: Callable[[], None], logged: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reason was; and the log says it once until somebody is heard."""
    caplog.set_level(logging.INFO, logger="service")
    monkeypatch.setattr(disconnect, "ASK_AGAIN_S", 0.02)
    broker = Hearing()
    async with readers_of(broker) as readers:
        broker.fail = fail
        readers.join(READ)
        await until(lambda: broker.num_asked > 3, timeout_s=disconnect.TELL_EVERY_S / 2)
        assert [record.levelname for record in caplog.records] == [logged]
        broker.fail = lambda: None
        await until(lambda: broker.heard == ["resp_a"], timeout_s=disconnect.TELL_EVERY_S / 2)
        other = job("resp_b")
        readers.join(other)
        await until(lambda: broker.heard == ["resp_a", "resp_b"], timeout_s=disconnect.TELL_EVERY_S / 2)
        broker.fail = fail
        readers.join(job("resp_c"))
        await until(lambda: broker.num_asked > 6, timeout_s=disconnect.TELL_EVERY_S / 2)
        assert [record.levelname for record in caplog.records] == [logged] * 2
