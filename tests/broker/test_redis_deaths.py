"""A process that dies between any two steps of a call leaves nothing behind that the others do not mend.

Death is a link over which nothing goes any more from the n-th script on, for every n.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from broker.limits import BrokerLimits
from broker.redis import leases, submission, sweeper
from broker.redis.broker import RedisBroker
from broker.redis.keys import Keys
from broker.redis.link import Argument, Link
from broker.settings import BrokerSettings
from contracts.broker import LeaseLost
from contracts.errors import BrokerUnavailable, ResponseNotFound
from contracts.jobs import Idempotency, Lease
from tests.broker.redis_brokers import client_of, settings
from tests.broker.redis_server import RedisServer
from tests.broker.samples import delta, done, image, job, read, status, types

LIMITS = BrokerLimits(runner_silence_s=0.4, no_runner_grace_s=0.4, image_ttl_s=30.0)
SOON_S = 20.0
PICTURE = image(b"picture")
KEY = Idempotency(key="k", body_sha256="x")


class MortalLink(Link):
    """Dies before its n-th script if ``dies_in`` is n; then even what is in the background comes to nothing."""

    dies_in: int | None = None

    async def run(self, name: str, keys: Sequence[str], *args: Argument) -> Any:
        if self.dies_in is not None:
            if self.dies_in == 0:
                raise BrokerUnavailable("dead")
            self.dies_in -= 1
        return await super().run(name, keys, *args)


@pytest.fixture
def of(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> BrokerSettings:
    monkeypatch.setattr(sweeper, "SETTLING_S", 0.3)
    monkeypatch.setattr(submission, "CLAIM_GRACE_S", 0.3)
    monkeypatch.setattr(leases, "COMPARE_EVERY_S", 0.2)
    monkeypatch.setattr(leases, "COMPARE_AFTER_S", 0.3)
    return settings(redis_server, LIMITS)


@pytest.fixture
async def survivor(of: BrokerSettings) -> AsyncIterator[RedisBroker]:
    """Another process, with a runner that is ready and takes nothing until it is told to."""
    broker = RedisBroker(of)
    await broker.heartbeat(status("spare"))

    async def beat() -> None:
        while True:
            await asyncio.sleep(0.05)
            await broker.heartbeat(status("spare"))

    beats = asyncio.create_task(beat())
    yield broker
    beats.cancel()
    await asyncio.wait([beats])
    await broker.aclose()


@pytest.fixture
async def mortal(of: BrokerSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisBroker]:
    from broker.redis import broker as module

    monkeypatch.setattr(module, "Link", MortalLink)
    broker = RedisBroker(of)
    for service in broker._services:  # it is about to die, not to help
        service.cancel()
    yield broker
    await broker.aclose()


async def dies_in(broker: RedisBroker, num_scripts: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the call failed of it; not if it needs no more scripts than that."""
    link = broker._link
    assert isinstance(link, MortalLink)
    link.dies_in = num_scripts
    try:
        await call()
    except BrokerUnavailable:
        return True
    return False


async def work_off(broker: RedisBroker, response_id: str) -> list[str]:
    """A runner that does all there is until this response has ended; its event types."""

    async def work() -> None:
        while True:
            for lease in await broker.take("spare", room=1):
                try:
                    await broker.publish(lease, [done(lease.job)])
                except LeaseLost:
                    continue

    working = asyncio.create_task(work())
    try:
        async with asyncio.timeout(SOON_S):
            return types(await read(broker, response_id))
    finally:
        working.cancel()
        await asyncio.wait([working])


async def assert_nothing_is_held(of: BrokerSettings, broker: RedisBroker) -> None:
    """No job open, none waiting, no image pinned; after some sweeps."""
    keys = Keys(of.key_prefix)
    wanted = [key for key in keys.queue if key.endswith((":open", ":waiting", ":open_of", ":cancels", ":deadlines"))]
    wanted += [key for key in keys.images if key.endswith(":pins")]
    client = client_of(broker)
    async with asyncio.timeout(SOON_S):
        for key in wanted:
            while True:
                if not await client.exists(key):
                    break
                await asyncio.sleep(0.05)
    groups = await client.xinfo_groups(keys.jobs)
    assert [(group["lag"], group["pending"]) for group in groups] == [(0, 0)]


@pytest.mark.parametrize("num_scripts", range(9))
async def test_submit(of: BrokerSettings, survivor: RedisBroker, mortal: RedisBroker, num_scripts: int) -> None:
    """The job is there, or it is not; with the same key it is there once."""
    await survivor.put_image(PICTURE)
    sent = job("resp_a", images=(PICTURE.ref,), owner="o")
    has_died = await dies_in(mortal, num_scripts, lambda: mortal.submit(sent, idempotency=KEY, max_open=1))
    assert has_died == (num_scripts < 6)
    again = job("resp_b", images=(PICTURE.ref,), owner="o")
    known = await survivor.submit(again, idempotency=KEY)
    assert types(await survivor.events(known))[0] == "created"
    assert (await work_off(survivor, known))[-1] == "completed"
    await assert_nothing_is_held(of, survivor)
    other = {"resp_a", "resp_b"} - {known}
    for response_id in other:
        try:
            assert types(await survivor.events(response_id)) == []
        except ResponseNotFound:
            continue


@pytest.mark.parametrize("num_scripts", range(5))
async def test_take(of: BrokerSettings, survivor: RedisBroker, mortal: RedisBroker, num_scripts: int) -> None:
    for name in ("resp_a", "resp_b"):
        await survivor.submit(job(name))
    link = mortal._link
    assert isinstance(link, MortalLink)
    link.dies_in = num_scripts
    try:
        async with asyncio.timeout(0.3):
            await mortal.take("r1", room=2)
    except TimeoutError:
        pass
    for name in ("resp_a", "resp_b"):
        assert (await work_off(survivor, name))[-1] == "completed"
    await assert_nothing_is_held(of, survivor)


@pytest.mark.parametrize("num_scripts", range(5))
async def test_publish_the_end(
    of: BrokerSettings, survivor: RedisBroker, mortal: RedisBroker, num_scripts: int
) -> None:
    await survivor.put_image(PICTURE)
    await survivor.submit(job("resp_a", images=(PICTURE.ref,)), idempotency=KEY)
    (lease,) = await mortal.take("r1", room=1)
    await mortal.publish(lease, [delta("resp_a", "x")])
    await dies_in(mortal, num_scripts, lambda: mortal.publish(lease, [done(lease.job)]))
    seen = await work_off(survivor, "resp_a")
    assert seen[-1] == "completed"
    assert seen.count("completed") == 1
    assert ("restarted" in seen) == (num_scripts == 0)
    await assert_nothing_is_held(of, survivor)


@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("num_scripts", range(5))
async def test_cancel(
    of: BrokerSettings, survivor: RedisBroker, mortal: RedisBroker, num_scripts: int, is_running: bool
) -> None:
    await survivor.submit(job("resp_a"))
    leases = await survivor.take("spare", room=1) if is_running else []
    await dies_in(mortal, num_scripts, lambda: mortal.cancel("resp_a"))
    if num_scripts == 0:  # nobody has heard of it
        await survivor.cancel("resp_a")
    async with asyncio.timeout(SOON_S):
        if leases:
            async for response_id in survivor.cancellations("spare"):
                assert response_id == "resp_a"
                break
            await survivor.publish(leases[0], [done(leases[0].job)])
        assert types(await read(survivor, "resp_a"))[-1] == ("completed" if is_running else "cancelled")
    await assert_nothing_is_held(of, survivor)


@pytest.mark.parametrize("num_scripts", range(5))
async def test_give_back(of: BrokerSettings, survivor: RedisBroker, mortal: RedisBroker, num_scripts: int) -> None:
    await survivor.submit(job("resp_a"))
    (lease,) = await mortal.take("r1", room=1)
    await dies_in(mortal, num_scripts, lambda: mortal.give_back(lease))
    assert (await work_off(survivor, "resp_a"))[-2:] == ["restarted", "completed"]
    await assert_nothing_is_held(of, survivor)


@pytest.mark.parametrize("num_scripts", range(8))
async def test_take_back_from_a_silent_runner(
    of: BrokerSettings, survivor: RedisBroker, mortal: RedisBroker, num_scripts: int
) -> None:
    """The sweeper itself dies in the middle of it."""
    gone = RedisBroker(of)
    await survivor.submit(job("resp_a"))
    await gone.take("r1", room=1)
    await asyncio.sleep(LIMITS.runner_silence_s)
    await dies_in(mortal, num_scripts, lambda: mortal._sweeper.sweep(is_hurry=True))
    assert (await work_off(survivor, "resp_a"))[-2:] == ["restarted", "completed"]
    await assert_nothing_is_held(of, survivor)
    await gone.aclose()


async def test_a_take_that_is_cancelled_in_its_last_step(
    of: BrokerSettings, survivor: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its leases, and nobody else knows of them yet."""
    taker = RedisBroker(of)
    lease = taker._leases._lease

    async def lease_and_cancel(*arguments: Any) -> None:
        await lease(*arguments)
        assert taker._leases._own
        taking.cancel()

    monkeypatch.setattr(taker._leases, "_lease", lease_and_cancel)
    await survivor.submit(job("resp_a"))
    taking = asyncio.create_task(taker.take("r1", room=1))
    await asyncio.wait([taking])
    assert taking.cancelled()
    (again,) = await asyncio.wait_for(survivor.take("spare", room=1), SOON_S)
    assert (again.attempt, taker._leases._own) == (1, {})  # it does not count as an attempt
    await survivor.publish(again, [done(again.job)])
    assert types(await survivor.events("resp_a")) == ["created", "queued", "completed"]
    await assert_nothing_is_held(of, survivor)
    await taker.aclose()


async def test_where_one_of_many_cannot_be_leased_all_wait_again(
    of: BrokerSettings, survivor: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were asked for together, so others may have been leased by then."""
    taker = RedisBroker(of)
    lease, ids, asked = taker._logs.lease, [f"resp_{letter}" for letter in "abcd"], []
    for response_id in ids:
        await survivor.submit(job(response_id))

    async def fail_once(response_id: str, *arguments: Any) -> Any:
        asked.append(response_id)
        if asked == ids[:3]:
            await asyncio.sleep(SOON_S / 100)
            assert asked == ids
            assert {each.held.response_id for each in taker._leases._own.values()} == {"resp_a", "resp_b", "resp_d"}
            raise BrokerUnavailable("it went away just now")
        return await lease(response_id, *arguments)

    monkeypatch.setattr(taker._logs, "lease", fail_once)
    leases: list[Lease] = []
    async with asyncio.timeout(SOON_S):
        while len(leases) < len(ids):
            leases += await taker.take("r1", room=8)
    assert sorted(each.job.response_id for each in leases) == ids
    assert [each.attempt for each in leases] == [1] * len(ids)
    for each in leases:
        await taker.publish(each, [done(each.job)])
    await assert_nothing_is_held(of, survivor)
    await taker.aclose()


async def test_a_runner_that_lives_and_does_not_know_of_a_job(of: BrokerSettings, survivor: RedisBroker) -> None:
    """As after Redis was restored to an earlier time: the job goes to a runner again."""
    await survivor.submit(job("resp_a"))
    (lease,) = await survivor.take("spare", room=1)
    survivor._leases.remove(lease)
    seen = await work_off(survivor, "resp_a")
    assert seen[-2:] == ["restarted", "completed"]
    await assert_nothing_is_held(of, survivor)
