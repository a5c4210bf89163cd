"""The embedded model, two engines, 200 requests in flight, and every way to break it: ``make test-faults``."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.deaf import deaf, most_memory_mib, post, read_to_end
from tests.faults.model import model_world
from tests.faults.scenarios import Scenarios
from tests.faults.world import World, run_scenario

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]

NUM_DEAF = 50
MAX_GROWTH_MIB = 2.0 * NUM_DEAF  # of both gateways, what the others cost them included


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with model_world(tmp_path_factory.mktemp("fleet")) as world:
        yield world


class TestModel(Scenarios):
    """On the fleet above."""

    async def test_clients_do_not_read(self, world: World) -> None:
        """They cost little, and the whole stream is there for those who read at last."""
        connections: list[socket.socket] = []

        async def ask_and_do_not_read(world: World) -> None:
            for number in range(NUM_DEAF):
                request = post("/v1/reason", world.make(-1 - number).body | {"metadata": {"n": "-1"}})
                connections.append(stack.enter_context(deaf(world.fleet.urls[number % 2], request)))

        gateways = world.fleet.gateways
        before_mib = sum(gateway.memory_mib() for gateway in gateways)
        with contextlib.ExitStack() as stack:
            watching = [asyncio.create_task(most_memory_mib(gateway)) for gateway in gateways]
            await run_scenario(world, "clients that do not read", ask_and_do_not_read)
            for task in watching:
                task.cancel()
            growth_mib = sum(await asyncio.gather(*watching)) - before_mib
            streams = [await asyncio.to_thread(read_to_end, connection) for connection in connections]
        assert len(streams) == NUM_DEAF
        assert all(b"event: response.completed" in stream for stream in streams)
        assert growth_mib < MAX_GROWTH_MIB, f"{growth_mib:.0f} MiB for {NUM_DEAF} clients"
