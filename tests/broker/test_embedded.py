"""The embedded broker: the contract, and what only this one promises (bounds of memory, by a clock that tests move)."""

import asyncio

import pytest

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from contracts.broker import Broker
from contracts.errors import NotReady, ResponseNotFound
from contracts.events import Failed
from contracts.jobs import Idempotency
from tests.broker.contract import BrokerContract, MakeBroker
from tests.broker.samples import Clock, delta, done, job, read, status, types


class TestContract(BrokerContract):
    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        async def make(limits: BrokerLimits) -> Broker:
            return EmbeddedBroker(limits)

        return make


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def finish(broker: EmbeddedBroker, response_id: str) -> None:
    await broker.submit(job(response_id))
    (lease,) = await broker.take("r1", room=1)
    await broker.publish(lease, [delta(response_id, "x" * 100), done(lease.job)])


async def test_a_finished_log_is_forgotten_after_its_time(clock: Clock) -> None:
    broker = EmbeddedBroker(BrokerLimits(keep_finished_s=900), clock=clock)
    await finish(broker, "resp_a")
    clock.now_s += 900
    assert types(await broker.events("resp_a"))[-1] == "completed"
    clock.now_s += 1
    with pytest.raises(ResponseNotFound):
        await broker.events("resp_a")
    await broker.aclose()


async def test_finished_logs_are_bounded_in_bytes_the_oldest_go_first(clock: Clock) -> None:
    broker = EmbeddedBroker(BrokerLimits(max_finished_bytes=2000), clock=clock)
    for index in range(10):
        await finish(broker, f"resp_{index}")
    known = []
    for index in range(10):
        try:
            known.append((await broker.job(f"resp_{index}")).response_id)
        except ResponseNotFound:
            continue
    assert 1 <= len(known) < 10
    assert known == [f"resp_{index}" for index in range(10 - len(known), 10)]
    await broker.aclose()


async def test_a_job_has_so_many_attempts_and_no_more(clock: Clock) -> None:
    broker = EmbeddedBroker(BrokerLimits(max_attempts=2, runner_silence_s=5), clock=clock)
    await broker.submit(job("resp_a"))
    for attempt, runner in enumerate(("r1", "r2"), start=1):
        (lease,) = await broker.take(runner, room=1)
        assert lease.attempt == attempt
        clock.now_s += 6
        await broker.heartbeat(status("spare"))
        broker.sweep()
    end = (await read(broker, "resp_a"))[-1]
    assert isinstance(end, Failed)
    await broker.aclose()


async def test_a_waiting_job_outlasts_a_short_absence_of_runners(clock: Clock) -> None:
    broker = EmbeddedBroker(BrokerLimits(no_runner_grace_s=5), clock=clock)
    await broker.heartbeat(status("r1"))
    clock.now_s += 100
    await broker.submit(job("resp_a"))
    clock.now_s += 4
    broker.sweep()
    await broker.heartbeat(status("r1"))
    clock.now_s += 4
    await broker.heartbeat(status("r1", is_ready=False))
    broker.sweep()
    assert types(await broker.events("resp_a")) == ["created", "queued"]
    clock.now_s += 2
    broker.sweep()
    assert types(await broker.events("resp_a"))[-1] == "failed"
    await broker.aclose()


async def test_room_that_was_not_used_counts_until_the_runner_is_back(clock: Clock) -> None:
    broker = EmbeddedBroker(clock=clock)
    await broker.submit(job("resp_a"))
    await broker.take("r1", room=2)
    await broker.submit(job("resp_b"))
    await broker.submit(job("resp_c"))
    assert types(await broker.events("resp_b")) == ["created"]
    assert types(await broker.events("resp_c")) == ["created", "queued"]
    await broker.aclose()


async def test_a_burst_loses_nobody() -> None:
    broker = EmbeddedBroker(BrokerLimits(max_waiting=1000))
    taken: list[str] = []

    async def work(runner_id: str) -> None:
        while len(taken) < 200:
            for lease in await broker.take(runner_id, room=3):
                taken.append(lease.job.response_id)
                await asyncio.sleep(0)
                await broker.publish(lease, [done(lease.job)])

    workers = [asyncio.create_task(work(f"r{n}")) for n in range(4)]
    for index in range(200):
        await broker.submit(job(f"resp_{index}"))
        if index % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    await broker.aclose()
    await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(taken) == sorted({f"resp_{index}" for index in range(200)})


async def test_closing_ends_what_is_open_and_refuses_what_comes() -> None:
    broker = EmbeddedBroker()
    await broker.submit(job("resp_a"))
    await broker.take("r1", room=1)
    await broker.submit(job("resp_b"))
    readers = [asyncio.create_task(read(broker, name)) for name in ("resp_a", "resp_b")]
    await asyncio.sleep(0)
    await broker.aclose()
    for events in await asyncio.gather(*readers):
        assert isinstance(events[-1], Failed)
    with pytest.raises(NotReady):
        await broker.submit(job("resp_c"))


async def test_a_key_is_forgotten_with_its_response(clock: Clock) -> None:
    broker = EmbeddedBroker(BrokerLimits(keep_finished_s=900), clock=clock)
    key = Idempotency(key="k", body_sha256="a")
    await broker.submit(job("resp_a"), idempotency=key)
    (lease,) = await broker.take("r1", room=1)
    await broker.publish(lease, [done(lease.job)])
    clock.now_s += 900
    assert await broker.submit(job("resp_b"), idempotency=key) == "resp_a"
    clock.now_s += 1
    broker.sweep()
    assert await broker.submit(job("resp_b"), idempotency=Idempotency(key="k", body_sha256="b")) == "resp_b"
    assert list(broker._keys._known) == [("", "k")]
    await broker.aclose()


async def test_a_late_job_that_runs_is_given_a_moment_more(clock: Clock) -> None:
    broker = EmbeddedBroker(BrokerLimits(deadline_slack_s=5), clock=clock)
    await broker.submit(job("resp_a", timeout_s=10.0))
    await broker.submit(job("resp_b", timeout_s=10.0))
    await broker.take("r1", room=1)
    clock.now_s += 10
    await broker.heartbeat(status("r1"))
    broker.sweep()
    assert types(await broker.events("resp_a")) == ["created", "queued"]
    assert types(await broker.events("resp_b"))[-1] == "failed"
    clock.now_s += 5
    await broker.heartbeat(status("r1"))
    broker.sweep()
    assert types(await broker.events("resp_a"))[-1] == "failed"
    await broker.aclose()
