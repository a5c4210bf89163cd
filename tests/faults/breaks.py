"""The ways to break a fleet. Each repairs what it broke, as a supervisor or an operator would."""

import asyncio
import shutil
import signal
import time
from pathlib import Path

import httpx

from tests.faults.client import SILENCE_S, Client
from tests.faults.crowd import next_number
from tests.faults.fleet import gauge
from tests.faults.process import Process
from tests.faults.record import Record
from tests.faults.world import World
from tests.servers import is_alive

ENGINE_LOST_STATUS = 3
ORPHANS_S = 5.0
SLOW_S = 0.1
HALF_OPEN_S = 9.0  # longer than it takes to find out by oneself
HELD_S = 2.0
NUM_SUBMISSIONS = 20
NUM_STREAMS = 5
NUM_HOPPING, HOPS_AFTER = 20, 3


async def nothing(world: World) -> None:
    """For comparison."""


async def kill_runner(world: World) -> None:
    """-9; its engine process must not outlive it."""
    runner = world.fleet.runners[0]
    below = runner.below()
    with world.hold_engine(runner):
        await asyncio.sleep(HELD_S / 2)
        runner.send(signal.SIGKILL)
        await runner.until_ended()
        await _until_none(below)
    await world.fleet.restart(runner)


async def kill_engine(world: World) -> None:
    """-9 of the engine process: the runner hands back its jobs, and ends with a status that says why."""
    runner = world.fleet.runners[0]
    with world.hold_engine(runner):  # so that it has something to lose
        await asyncio.sleep(HELD_S / 2)
        world.kill_engine(runner)
        assert await runner.until_ended() == ENGINE_LOST_STATUS
    await world.fleet.restart(runner)


async def kill_gateway(world: World) -> None:
    gateway = world.fleet.gateways[0]
    await _until_streams(world.fleet.urls[0])
    gateway.send(signal.SIGKILL)
    await asyncio.sleep(world.pace.outage_s)
    await world.fleet.restart(gateway)


async def restart_redis(world: World) -> None:
    """-9; it comes back with what its append-only file holds."""
    redis = world.fleet.redis
    await asyncio.to_thread(redis.kill)
    await asyncio.sleep(world.pace.outage_s)
    await asyncio.to_thread(redis.start)


async def restart_redis_empty(world: World) -> None:
    """-9, and its file is gone."""
    redis = world.fleet.redis
    await asyncio.to_thread(redis.kill)
    shutil.rmtree(world.fleet.folder / "redis" / "appendonlydir")
    await asyncio.sleep(world.pace.outage_s)
    await asyncio.to_thread(redis.start)


async def pause_runner(world: World) -> None:
    """It does not know that it was away, and says what it has to say to a job that has moved on."""
    runner = world.fleet.runners[0]
    stopped = [runner.pid, *runner.below()]
    with world.hold_engine(runner):
        await asyncio.sleep(HELD_S / 2)
        runner.send(signal.SIGSTOP)
    await asyncio.sleep(world.pace.pause_s)
    assert all(is_alive(pid) for pid in stopped)
    runner.send(signal.SIGCONT)


async def slow_network(world: World) -> None:
    """Of a gateway and of a runner: slow, then half-open, then cut, then refused for a while."""
    proxies = (world.fleet.gateway_proxy, world.fleet.runner_proxy)
    assert all(proxy.num_connections for proxy in proxies)
    for proxy in proxies:
        proxy.delay_s = SLOW_S
    await asyncio.sleep(world.pace.outage_s)
    for proxy in proxies:
        proxy.freeze()
    await asyncio.sleep(HALF_OPEN_S)
    assert all(proxy.num_working for proxy in proxies), "nobody has noticed, and connected anew"
    for proxy in proxies:
        proxy.reset()
    await asyncio.sleep(world.pace.outage_s)
    for proxy in proxies:
        proxy.refuse()
    await asyncio.sleep(world.pace.outage_s)
    for proxy in proxies:
        proxy.restore()


async def terminate_runner(world: World) -> None:
    """As a supervisor does before it replaces it."""
    runner = world.fleet.runners[0]
    below = runner.below()
    with world.hold_engine(runner):
        await asyncio.sleep(HELD_S / 2)
        runner.send(signal.SIGTERM)
        await asyncio.sleep(HELD_S / 2)
    assert await runner.until_ended() == 0, runner.output()
    await _until_none(below)
    await world.fleet.restart(runner)


async def terminate_gateway(world: World) -> None:
    """As a supervisor does: first it says that it is not ready, then it closes its port."""
    gateway, url = world.fleet.gateways[0], world.fleet.urls[0]
    await _until_streams(url)
    gateway.send(signal.SIGTERM)
    async with httpx.AsyncClient(timeout=5) as http:
        assert await _readiness(http, url, until=503) == 503
        assert (await http.get(f"{url}/healthz")).status_code == 200
    assert await gateway.until_ended() == 0, gateway.output()
    await world.fleet.restart(gateway)


async def submit_again(world: World) -> list[Record]:
    """One request from twenty clients at once, at all gateways, with one idempotency key."""
    request = world.make(next_number())
    async with httpx.AsyncClient(timeout=SILENCE_S) as http:
        turns = [[*world.fleet.urls[turn:], *world.fleet.urls[:turn]] for turn in range(len(world.fleet.urls))]
        clients = [
            Client(http, turns[index % len(turns)], request, patience_s=world.pace.patience_s)
            for index in range(NUM_SUBMISSIONS)
        ]
        records = await asyncio.gather(*(client.run() for client in clients))
    assert len({response_id for record in records for response_id in record.response_ids}) == 1
    assert all(record.events == records[0].events for record in records)
    return records


async def hop(world: World) -> list[Record]:
    """Clients that leave again and again, and go on at another gateway, while both are well."""
    async with httpx.AsyncClient(timeout=SILENCE_S) as http:
        clients = [
            Client(
                http,
                world.fleet.urls,
                world.make(next_number()),
                patience_s=world.pace.patience_s,
                leaves_after=HOPS_AFTER,
            )
            for _ in range(NUM_HOPPING)
        ]
        records = await asyncio.gather(*(client.run() for client in clients))
    assert all(record.num_resumed > 1 for record in records)
    return records


async def _readiness(http: httpx.AsyncClient, url: str, *, until: int, timeout_s: float = 2.0) -> int:
    deadline = time.monotonic() + timeout_s
    while True:
        status = (await http.get(f"{url}/readyz")).status_code
        if status == until or time.monotonic() > deadline:
            return status
        await asyncio.sleep(0.02)


async def _until_streams(url: str, timeout_s: float = 20.0) -> None:
    """There is something to lose: on a busy machine requests come to this gateway in waves."""
    async with asyncio.timeout(timeout_s), httpx.AsyncClient(timeout=timeout_s) as http:
        while gauge((await http.get(f"{url}/metrics")).text, "ilvr_gateway_stream_readers") < NUM_STREAMS:  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.05)


async def _until_none(pids: list[int]) -> None:
    deadline = time.monotonic() + ORPHANS_S
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"processes {left} outlive the one that started them"
        await asyncio.sleep(0.05)


def engine_process(runner: Process) -> int:
    """The id of vLLM's engine process, by the name that it gives itself."""
    return next(pid for pid in runner.below() if "EngineCore" in Path(f"/proc/{pid}/cmdline").read_text())
