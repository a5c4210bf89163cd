"""Requests of every kind, at a gateway and two runners that are brokers on one Redis."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from broker.endings import failed
from broker.redis.broker import RedisBroker
from broker.settings import BrokerSettings
from contracts.broker import LeaseLost
from contracts.errors import GenerationFailed, RateLimited
from contracts.events import Event
from contracts.jobs import Idempotency, Job, Lease, RateLimit
from tests.broker.samples import delta, done, image, job, read, status, types

AT_ONCE = 50
ABANDONED_EVERY = 25
ALL_S = 60.0
TIME_UP_S = 0.5
READ_FOR_S = 0.5
PICTURES = [image(bytes([number]) * 500) for number in range(16)]
SLOW = {"kind": "slow"}
FAILING = {"kind": "failing"}


async def runner(broker: RedisBroker, runner_id: str) -> None:
    """Ends all but the slow ones, which wait for their cancellation or their deadline."""
    leases: dict[str, Lease] = {}
    unwanted: set[str] = set()

    async def end(response_id: str) -> None:
        lease = leases.pop(response_id)
        with suppress(LeaseLost):
            await broker.publish(lease, [end_of(lease.job)])

    async def beat() -> None:
        while True:
            await broker.heartbeat(status(runner_id))
            await asyncio.sleep(0.2)

    async def hear() -> None:
        async for response_id in broker.cancellations(runner_id):
            unwanted.add(response_id)
            if response_id in leases:
                await end(response_id)

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        group.create_task(hear())
        while True:
            for lease in await broker.take(runner_id, room=8):
                for ref in lease.job.images:
                    await broker.get_image(ref.id)
                response_id = lease.job.response_id
                with suppress(LeaseLost):
                    await broker.publish(lease, [delta(response_id, "x")])
                leases[response_id] = lease
                if lease.job.metadata != SLOW or response_id in unwanted:
                    await end(response_id)


def end_of(of: Job) -> Event:
    if of.metadata == FAILING:
        return failed(of, [], GenerationFailed("It was told to."), total_ms=1.0)
    return done(of)


class Requests:
    """Of each ten one is cancelled or too slow, one fails, two are in the background, two share an idempotency key,
    some seven have pictures; all count for a rate. Now and then somebody uploads a picture that nobody asks about, and
    a gateway dies half way.
    """

    def __init__(self, gateway: RedisBroker) -> None:
        self._gateway = gateway
        self._background: list[str] = []
        self.ends: Counter[str] = Counter()

    async def make(self, number: int) -> None:
        gateway, owner, response_id = self._gateway, f"owner-{number % 7}", f"resp_{number}"
        picture, kind = PICTURES[number % len(PICTURES)], number % 10
        with suppress(RateLimited):
            await gateway.spend(owner, RateLimit(per_minute=600.0, burst=10))
        await gateway.put_image(picture, owner=owner)
        is_late = number % 20 == 0
        sent = job(
            response_id,
            images=(picture.ref,) if number % 3 else (),
            owner=owner,
            metadata=SLOW if kind == 0 else FAILING if kind == 1 else {},
            timeout_s=TIME_UP_S if is_late else None,
        )
        key = Idempotency(key=f"key-{number // 2}", body_sha256="x") if kind in (4, 5) else None
        if number % ABANDONED_EVERY == 3:
            await self._abandon(number, owner)
        known = await gateway.submit(sent, idempotency=key, max_open=AT_ONCE)
        if is_late or kind in (6, 7):  # in the background: its client is gone
            self._background.append(known)
            return
        await gateway.note_reading([known], reader="g1", for_s=READ_FOR_S)
        if kind == 0:
            await gateway.cancel(known)
        self.ends[types(await read(gateway, known))[-1]] += 1

    async def _abandon(self, number: int, owner: str) -> None:
        """A picture of its own, and what there is of a request when its gateway dies before it is admitted."""
        gateway, response_id = self._gateway, f"resp_half{number}"
        lonely = image(f"lonely {number}".encode())
        await gateway.put_image(lonely, owner=owner)
        await gateway._owners.claim(owner, Idempotency(key=response_id, body_sha256="x"), response_id)
        await gateway._logs.create(job(response_id, owner=owner, images=(lonely.ref,)), response_id)
        await gateway._images.pin([lonely.ref.id], response_id)

    async def come_back(self) -> None:
        """For what went on in the background."""
        for response_id in self._background:
            self.ends[types(await read(self._gateway, response_id))[-1]] += 1


async def many_requests(
    of: BrokerSettings, num_requests: int, look: Callable[[RedisBroker], Coroutine[Any, Any, None]], every_s: float
) -> Counter[str]:
    """How they ended. ``look`` is called now and then, and after the last end, before all processes stop."""
    gateway, workers = RedisBroker(of), [RedisBroker(of) for _ in range(2)]
    running = [asyncio.create_task(runner(broker, f"r{n}")) for n, broker in enumerate(workers)]
    await asyncio.sleep(0.2)
    requests, slots = Requests(gateway), asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with slots:
            await requests.make(number)

    async with asyncio.timeout(ALL_S):
        asking = asyncio.gather(*(one(number) for number in range(num_requests)))
        while not asking.done():
            assert not any(task.done() for task in running)
            await asyncio.wait([asking], timeout=every_s)
            await look(gateway)
        await asking
        await requests.come_back()
        await look(gateway)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for broker in (*workers, gateway):
        await broker.aclose()
    return requests.ends
