"""Clients that ask, stay connected and do not read: they cost a gateway little, and nobody else anything."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import VARIABLES, scripted_command, scripted_world
from tests.faults.crowd import next_number
from tests.faults.deaf import deaf, get, most_memory_mib
from tests.faults.fleet import Fleet, gauge
from tests.faults.world import World, run_scenario

NUM_DEAF = 20
NUM_STEPS = 500  # the log is then several MiB, more than the kernel holds for a socket
LEAST_LOG_MIB = 5.0
SOON_S = 30.0
WRITE_TIMEOUT_S = 3.0
# Of each deaf client: a write buffer and a page of its log, which is far less than the log.
MAX_GROWTH_MIB = 2.0 * NUM_DEAF


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    variables = {**VARIABLES, "ILVR_SERVICE_WRITE_TIMEOUT_S": str(WRITE_TIMEOUT_S)}
    fleet = Fleet(
        tmp_path, scripted_command(tmp_path, seconds=1), variables, num_gateways=1, num_runners=1, runner_start_s=30
    )
    async with fleet.running():
        world = scripted_world(fleet)
        yield dataclasses.replace(world, pace=dataclasses.replace(world.pace, in_flight=10))


async def long_response(url: str) -> str:
    """The id of one that is over."""
    question = f"Say RRDD, the {next_number()}th, in {NUM_STEPS} steps"
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        answer = (await http.post("/v1/reason", json={"question": question, "metadata": {"n": "0"}})).json()
        log = await http.get(f"/v1/reason/{answer['id']}/events")
    assert answer["answer"] == "RRDD"
    assert len(log.content) > LEAST_LOG_MIB * 2**20
    return str(answer["id"])


async def until_read_by(url: str, count: int) -> None:
    """That many streams are being sent at once, and so cannot get rid of what they have."""
    most = 0.0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SOON_S), httpx.AsyncClient(timeout=SOON_S) as http:
            while most < count:
                most = max(most, gauge((await http.get(f"{url}/metrics")).text, "ilvr_gateway_stream_readers"))
                await asyncio.sleep(0.05)
    assert most >= count


async def test_clients_that_stop_reading(world: World) -> None:
    """While they are connected, others are answered; then they are dropped, although they never leave."""
    gateway, url = world.fleet.gateways[0], world.fleet.urls[0]
    request = get(f"/v1/reason/{await long_response(url)}/events")
    before_mib = gateway.memory_mib()

    async def stop_reading(world: World) -> None:
        for _ in range(NUM_DEAF):
            stack.enter_context(deaf(url, request))
        await until_read_by(url, NUM_DEAF)
        await asyncio.sleep(WRITE_TIMEOUT_S)

    with contextlib.ExitStack() as stack:
        watching = asyncio.create_task(most_memory_mib(gateway))
        await run_scenario(world, "clients that do not read", stop_reading)
        watching.cancel()
        growth_mib = await watching - before_mib
    assert growth_mib < MAX_GROWTH_MIB, f"{growth_mib:.0f} MiB for {NUM_DEAF} clients"
