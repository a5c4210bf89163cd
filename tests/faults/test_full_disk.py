"""Logs that cannot be written stop nothing: every process writes to a device that is always full."""

import dataclasses
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.breaks import nothing
from tests.faults.conftest import VARIABLES, scripted_command, scripted_world
from tests.faults.fleet import Fleet
from tests.faults.model import model_world
from tests.faults.world import World, run_scenario

FULL = Path("/dev/full")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    fleet = Fleet(
        tmp_path,
        scripted_command(tmp_path, seconds=0.5),
        VARIABLES,
        num_gateways=1,
        num_runners=1,
        runner_start_s=30,
        output=FULL,
    )
    async with fleet.running():
        world = scripted_world(fleet)
        yield dataclasses.replace(world, pace=dataclasses.replace(world.pace, in_flight=20))


def test_the_device_is_what_it_says() -> None:
    with pytest.raises(OSError, match="No space left"):
        FULL.write_text("anything")


async def nothing_is_lost(world: World) -> None:
    await run_scenario(world, "no space for logs", nothing)
    for process in (*world.fleet.gateways, *world.fleet.runners):
        process.send(signal.SIGTERM)
        assert await process.until_ended() == 0


async def test_nothing_is_lost_where_no_log_can_be_written(world: World) -> None:
    await nothing_is_lost(world)


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_nothing_is_lost_with_the_model(tmp_path: Path) -> None:
    async with model_world(tmp_path, output=FULL) as world:
        await nothing_is_lost(world)
