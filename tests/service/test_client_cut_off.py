"""The Python client and a gateway with a network between them that breaks."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from contracts.errors import ResponseCancelled
from contracts.events import Event
from ilvr.client import AsyncClient
from service.settings import ServiceSettings
from tests.faults.proxy import Proxy
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import GRACE_S, until

pytestmark = pytest.mark.usefixtures("runner")


@pytest.fixture
async def proxy(live: httpx.AsyncClient) -> AsyncIterator[Proxy]:
    assert live.base_url.port is not None
    async with Proxy(live.base_url.port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}") as client:
        yield client


class TestInTime:
    @pytest.fixture
    def settings(self) -> ServiceSettings:
        return ServiceSettings(disconnect_grace_s=5)

    async def test_a_stream_that_is_cut_off_twice_goes_on(
        self, client: AsyncClient, proxy: Proxy, runner: ScriptedRunner
    ) -> None:
        runner.delay_s = 0.03
        heard: list[Event] = []
        async with await client.reason([], "Where?", stream=True) as events:
            async for event in events:
                heard.append(event)
                if len(heard) in (3, 6):
                    proxy.reset()
        assert [event.sequence_number for event in heard] == list(range(len(heard)))
        assert events.response.status == "completed"
        assert len(runner.jobs) == 1
        assert proxy.num_connections == 3


async def test_who_comes_back_too_late_is_told(client: AsyncClient, proxy: Proxy, runner: ScriptedRunner) -> None:
    """The server has given up on who does not read: that is no answer."""
    runner.pause()
    asked = asyncio.create_task(client.reason([], "Where?"))
    await until(lambda: runner.num_working == 1)
    proxy.refuse()
    await asyncio.sleep(GRACE_S + 0.5)
    proxy.restore()
    with pytest.raises(ResponseCancelled):
        await asked


async def test_a_question_whose_time_is_up_is_cancelled(client: AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.reason([], "Where?")
    await until(lambda: runner.num_working == 0)
    assert (await client.get(runner.jobs[0].response_id)).status == "cancelled"
