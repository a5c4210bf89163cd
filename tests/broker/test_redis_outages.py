"""A Redis that is not there, goes away or comes back empty: calls fail in time, and nothing hangs."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.limits import BrokerLimits
from broker.redis import following as following_module
from broker.redis.broker import RedisBroker
from contracts.broker import LeaseLost
from contracts.errors import BrokerUnavailable, ResponseNotFound
from contracts.events import Event, StepDelta
from contracts.jobs import Idempotency, Lease
from tests.broker.redis_brokers import settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, image, job, next_cancellation, read, status, types

SOON_S = 15.0  # far more than a reconnection takes, also on a busy machine
FEW_S = 10.0  # what a call may take before it gives up


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", password="very-secret") as server:
        yield server


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", is_persistent=True, options=("--appendfsync", "always")) as server:
        yield server


class Pair:
    """A gateway's broker and a runner's, and the runner's heartbeats."""

    def __init__(self, server: RedisServer, limits: BrokerLimits) -> None:
        of = settings(server, limits)
        self.gateway, self.runner = RedisBroker(of), RedisBroker(of)

    async def __aenter__(self) -> "Pair":
        self._beats = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beats.cancel()
        await asyncio.wait([self._beats])
        await self.runner.aclose()
        await self.gateway.aclose()

    async def _beat(self) -> None:
        while True:
            try:
                await self.runner.heartbeat(status("r1"))
            except BrokerUnavailable:
                continue
            await asyncio.sleep(0.1)

    async def leased(self, response_id: str = "resp_a") -> Lease:
        await self.gateway.submit(job(response_id))
        (lease,) = await asyncio.wait_for(self.runner.take("r1", room=1), SOON_S)
        return lease


async def publish_patiently(broker: RedisBroker, lease: Lease, event: Event, num_before: int) -> None:
    async with asyncio.timeout(2 * SOON_S):
        while True:
            try:
                return await broker.publish(lease, [event], num_before=num_before)
            except BrokerUnavailable:
                continue


async def test_a_redis_that_is_not_there_yet(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="broker")
    server.stop()
    async with Pair(server, BrokerLimits()) as pair:
        taking = asyncio.create_task(pair.runner.take("r1", room=1))
        began_at = time.monotonic()
        for call in (pair.gateway.submit(job("resp_a")), pair.gateway.runners(), pair.gateway.put_image(image(b"x"))):
            with pytest.raises(BrokerUnavailable):
                await call
        assert time.monotonic() - began_at < FEW_S
        server.start()
        async with asyncio.timeout(SOON_S):
            while True:
                try:
                    await pair.gateway.submit(job("resp_a"))
                    break
                except BrokerUnavailable:
                    await asyncio.sleep(0.1)
            (lease,) = await taking
        assert lease.job.response_id == "resp_a"
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("broker")]
        assert sum("cannot be reached" in line for line in lines) == 2  # of two processes
        assert sum("there again" in line for line in lines) == 2
        assert "very-secret" not in caplog.text


async def test_a_killed_redis_with_a_file_goes_on_where_it_was(durable: RedisServer) -> None:
    async with Pair(durable, BrokerLimits()) as pair:
        lease = await pair.leased()
        reading = asyncio.create_task(read(pair.gateway, "resp_a"))
        hearing = asyncio.create_task(next_cancellation(pair.runner.cancellations("r1")))
        taking = asyncio.create_task(pair.runner.take("r1", room=1))
        for number in range(40):
            if number in (10, 25):
                durable.kill()
                asyncio.get_running_loop().call_later(0.5, durable.start)
            await publish_patiently(pair.runner, lease, delta("resp_a", str(number)), number)
        await pair.gateway.submit(job("resp_b"))
        (other,) = await asyncio.wait_for(taking, SOON_S)
        assert (other.job.response_id, other.attempt) == ("resp_b", 1)
        await pair.gateway.cancel("resp_b")
        assert await asyncio.wait_for(hearing, SOON_S) == "resp_b"
        await pair.runner.publish(lease, [done(lease.job)])
        events = await asyncio.wait_for(reading, SOON_S)
        assert [event.text for event in events if isinstance(event, StepDelta)] == [str(n) for n in range(40)]
        assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_redis_that_comes_back_empty_has_lost_all_and_says_so(server: RedisServer) -> None:
    async with Pair(server, BrokerLimits()) as pair:
        lease = await pair.leased()
        await pair.runner.publish(lease, [delta("resp_a", "half")])
        reading = asyncio.create_task(read(pair.gateway, "resp_a"))
        taking = asyncio.create_task(pair.runner.take("r1", room=1))
        await asyncio.sleep(0.1)
        server.kill()
        server.start()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(reading, SOON_S)
        with pytest.raises(LeaseLost):
            await publish_patiently(pair.runner, lease, delta("resp_a", "more"), 1)
        with pytest.raises(ResponseNotFound):
            await read(pair.gateway, "resp_a")
        await pair.gateway.submit(job("resp_b"))
        (other,) = await asyncio.wait_for(taking, SOON_S)
        assert other.job.response_id == "resp_b"


async def test_a_follower_does_not_wait_for_ever(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "FOLLOW_WITHOUT_REDIS_S", 1.0)
    async with Pair(server, BrokerLimits()) as pair:
        await pair.leased()
        reading = asyncio.create_task(read(pair.gateway, "resp_a"))
        await asyncio.sleep(0.2)
        server.kill()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(reading, SOON_S)
        server.start()


async def test_nobody_is_declared_dead_because_redis_was_away(server: RedisServer) -> None:
    async with Pair(server, BrokerLimits(runner_silence_s=1.5, no_runner_grace_s=1.5)) as pair:
        lease = await pair.leased()
        await pair.gateway.submit(job("resp_waiting"))
        await asyncio.sleep(1.0)
        server.pause()
        await asyncio.sleep(3.0)
        server.resume()
        await asyncio.sleep(1.0)
        await publish_patiently(pair.runner, lease, delta("resp_a", "still here"), 0)
        await pair.runner.publish(lease, [done(lease.job)])
        assert types(await pair.gateway.events("resp_a")) == ["created", "queued", "delta", "completed"]
        assert types(await pair.gateway.events("resp_waiting")) == ["created", "queued"]


REFUSALS = {  # what Redis is told, and what heals it
    "MISCONF": (('CONFIG SET save "3600 1"', "BGSAVE"), 'CONFIG SET save ""'),
    "NOREPLICAS": (("CONFIG SET min-replicas-to-write 1",), "CONFIG SET min-replicas-to-write 0"),
    "BUSY": (("CONFIG SET busy-reply-threshold 50", 'EVAL "while true do end" 0'), "SCRIPT KILL"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_redis_that_takes_no_writes_is_away(
    refusal: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its disk fails, its replicas are gone, or a script of somebody's hangs: all goes on when it is healed."""
    causes, healing = REFUSALS[refusal]
    with RedisServer(tmp_path / "redis") as server:
        async with Pair(server, BrokerLimits()) as pair:
            lease = await pair.leased()
            taking = asyncio.create_task(pair.runner.take("r1", room=1))
            reading = asyncio.create_task(read(pair.gateway, "resp_a"))
            if refusal == "MISCONF":
                shutil.rmtree(tmp_path / "redis")  # so a snapshot has nowhere to go
            for cause in causes:
                server.send(cause)
            async with asyncio.timeout(SOON_S):  # a snapshot takes a moment to fail
                while True:
                    if refusal in caplog.text:
                        break
                    await asyncio.sleep(0.05)
            for call in (
                pair.gateway.submit(job("resp_b")),
                pair.gateway.put_image(image(b"x")),
                pair.gateway.note_reading(["resp_a"], reader="g", for_s=1),
                pair.runner.publish(lease, [delta("resp_a", "x")], num_before=0),
                pair.runner.heartbeat(status("r1")),
                pair.runner.give_back(lease),
            ):
                with pytest.raises(BrokerUnavailable):
                    await call
            assert not taking.done()
            server.send(healing)
            await publish_patiently(pair.runner, lease, delta("resp_a", "x"), 0)
            await pair.runner.publish(lease, [done(lease.job)])
            assert types(await asyncio.wait_for(reading, SOON_S)) == ["created", "queued", "delta", "completed"]
            await pair.gateway.submit(job("resp_b"))
            (other,) = await asyncio.wait_for(taking, SOON_S)
            assert other.job.response_id == "resp_b"
            for broker in (pair.gateway, pair.runner):
                assert not [service for service in broker._services if service.done()]
    lines = [record.getMessage() for record in caplog.records if record.name == "broker.redis.link"]
    assert sum(refusal in line for line in lines) <= 2  # of two processes, whatever could be read meanwhile


@pytest.mark.parametrize("damage", ["SCRIPT FLUSH", "DEL {jobs}", "XGROUP DESTROY {jobs} runners"])
async def test_what_somebody_removes_by_hand_is_made_again(redis_server: RedisServer, damage: str) -> None:
    of = settings(redis_server)
    broker = RedisBroker(of)
    await broker.submit(job("resp_a"))
    redis_server.command(*damage.format(jobs=f"{of.key_prefix}:1:{{queue}}:jobs").split())
    await broker.submit(job("resp_b"))
    taken = [lease.job.response_id for lease in await broker.take("r1", room=4)]
    assert taken == ["resp_a", "resp_b"]
    await broker.aclose()


async def test_one_key_is_one_run_also_if_the_process_that_claimed_it_dies(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims the key and dies; or it is only held up, and comes back when another one has taken over."""
    from broker.redis import submission

    monkeypatch.setattr(submission, "CLAIM_GRACE_S", 0.3)
    of = settings(redis_server)
    held_up, others = RedisBroker(of), [RedisBroker(of) for _ in range(3)]
    go_on = asyncio.Event()
    create = held_up._logs.create

    async def create_late(*args: object) -> tuple[bool, str]:
        await go_on.wait()
        return await create(*args)

    held_up._logs.create = create_late  # type: ignore[method-assign, assignment]
    idempotency = Idempotency(key="k", body_sha256="x")
    first = asyncio.create_task(held_up.submit(job("resp_first"), idempotency=idempotency))
    await asyncio.sleep(0.1)
    found = await asyncio.gather(
        *(broker.submit(job(f"resp_{n}"), idempotency=idempotency) for n, broker in enumerate(others * 5))
    )
    assert len(set(found)) == 1
    assert found[0] != "resp_first"
    go_on.set()
    assert await first == found[0]
    (lease,) = await others[0].take("r1", room=9)
    assert lease.job.response_id == found[0]
    for broker in (held_up, *others):
        await broker.aclose()


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """What a broker has started ends with it."""
    yield
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not [name for name in names if name.startswith("broker ")]
