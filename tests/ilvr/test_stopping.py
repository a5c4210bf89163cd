"""While a server stops, whoever asks is answered, told to come back, or not connected: never 500, never silence.

The gateway on a socket and the real runner, with a scripted engine, stopped in the order in which ``ilvr serve`` stops.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from broker.settings import BrokerSettings
from ilvr.processes import serve
from ilvr.processes.listener import bind
from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.prompt import PromptBuilder
from model_runner.settings import RunnerSettings
from model_runner.vocabulary import Vocabulary, read_vocabulary
from service.app import create_app
from service.settings import ServiceSettings
from tests.model_runner.folders import MAZE_TINY
from tests.model_runner.scripted_engine import ScriptedEngine
from tests.model_runner.world import ANSWER, HELD, MakeTools, Start, World, make_tools, start
from tests.service.conftest import serving
from tests.service.helpers import check_error, frames

__all__ = ["make_tools", "start"]

ASK = {"question": "?"}


@pytest.fixture(scope="module")
def maze_checkpoint() -> Checkpoint:
    return read_checkpoint(MAZE_TINY, is_cpu=True)


@pytest.fixture(scope="module")
def maze_prompts(maze_checkpoint: Checkpoint) -> PromptBuilder:
    return PromptBuilder(maze_checkpoint)


@pytest.fixture(scope="module")
def maze_vocabulary() -> Vocabulary:
    return read_vocabulary(MAZE_TINY)


@asynccontextmanager
async def gateway(world: World) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(world.broker, ServiceSettings(disconnect_grace_s=0.3), CollectorRegistry())
    async with serving(app) as client:
        yield client


async def stop(world: World, grace_s: float) -> None:
    await world.runner.drain(grace_s)
    world.task.cancel()
    await asyncio.wait([world.task])
    await world.broker.aclose()


async def test_at_no_moment_of_a_stop_is_there_anything_but_an_answer_or_503(start: Start) -> None:
    """Requests come all the time, some wait, some run; the engine answers until the grace is over."""
    seen: Counter[tuple[int, str]] = Counter()
    async with start(ANSWER, max_num_seqs=2) as world, gateway(world) as client:
        is_over = asyncio.Event()

        async def keep_asking(fields: dict[str, Any]) -> None:
            while not is_over.is_set():
                answer = await client.post("/v1/reason", json={**ASK, **fields})
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) >= 1
                    seen[503, answer.json()["error"]["code"]] += 1
                elif fields.get("stream") and answer.status_code == 200:
                    last = frames(answer.text)[-1]
                    seen[200, last.data["error"]["code"] if last.event == "response.failed" else last.event] += 1
                else:
                    seen[answer.status_code, ""] += 1

        asking = [asyncio.create_task(keep_asking({"stream": n % 2 == 0})) for n in range(8)]
        await asyncio.sleep(0.3)
        await stop(world, 0.3)
        await asyncio.sleep(0.3)
        is_over.set()
        await asyncio.gather(*asking)
    assert set(seen) <= {
        (200, ""),
        (200, "response.completed"),
        (200, "engine_dead"),
        (503, "not_ready"),
        (503, "engine_dead"),
    }
    assert min(seen[200, ""], seen[200, "response.completed"], seen[503, "not_ready"]) > 0


async def test_what_runs_at_the_end_of_the_grace_gets_503(start: Start) -> None:
    async with start(HELD) as world, gateway(world) as client:
        waiting = asyncio.create_task(client.post("/v1/reason", json=ASK))
        streaming = asyncio.create_task(client.post("/v1/reason", json={**ASK, "stream": True}))
        await world.engine.until_open(2)
        await stop(world, 0.1)
        answer = await waiting
        check_error(answer, 503, "engine_dead")
        assert int(answer.headers["retry-after"]) >= 1
        last = frames((await streaming).text)[-1]
        assert (last.event, last.data["error"]["retryable"]) == ("response.failed", True)


async def test_what_runs_may_finish_within_the_grace(start: Start) -> None:
    async with start(HELD) as world, gateway(world) as client:
        waiting = asyncio.create_task(client.post("/v1/reason", json=ASK))
        await world.engine.until_open(1)
        stopping = asyncio.create_task(stop(world, 10.0))
        await asyncio.sleep(0.05)
        refused = await client.post("/v1/reason", json=ASK)
        assert "about to stop" in check_error(refused, 503, "not_ready")
        world.engine.may_go_on.set()
        assert (await waiting).status_code == 200
        await asyncio.wait_for(stopping, 5)


async def test_a_body_that_arrives_after_the_end_gets_503(start: Start) -> None:
    """It was let in while all was well, and took its time."""
    async with start(ANSWER) as world, gateway(world) as client:
        may_go_on = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b'{"question":'
            await may_go_on.wait()
            yield b' "?"}'

        headers = {"Content-Type": "application/json"}
        uploading = asyncio.create_task(client.post("/v1/reason", content=body(), headers=headers))
        await asyncio.sleep(0.1)
        await stop(world, 0.1)
        may_go_on.set()
        answer = await uploading
        check_error(answer, 503, "not_ready")
        assert int(answer.headers["retry-after"]) >= 1


class Served:
    """``ilvr serve`` in this process, with a scripted engine; signals are real."""

    def __init__(self, make_tools: MakeTools) -> None:
        self.engine = ScriptedEngine(HELD)
        self._tools = make_tools(self.engine)
        self._address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> httpx.AsyncClient:
        settings = ServiceSettings(disconnect_grace_s=0.3)
        self.ended = asyncio.create_task(
            serve._serve(
                RunnerSettings(model=MAZE_TINY),
                settings,
                BrokerSettings(),
                CollectorRegistry(),
                self._tools,
                bind("127.0.0.1", 0),
                self._address.set_result,
            )
        )
        self._client = httpx.AsyncClient(base_url=await self._address, timeout=20)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        await asyncio.wait_for(self.ended, 10)


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def test_what_runs_in_the_background_has_the_grace_too(
    make_tools: MakeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection is open that would be waited for."""
    monkeypatch.setattr(serve, "SHUTDOWN_GRACE_S", 1.0)
    served = Served(make_tools)
    async with served as client:
        assert (await client.post("/v1/reason", json={**ASK, "background": True})).status_code == 200
        await served.engine.until_open(1)
        send_sigterm()
        await asyncio.sleep(0.5)
        assert not served.ended.done()
        assert len(served.engine.open) == 1
        served.engine.may_go_on.set()
        await asyncio.wait_for(served.ended, 0.4)  # and no longer than it takes


async def test_a_second_signal_ends_the_grace(make_tools: MakeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "SHUTDOWN_GRACE_S", 60.0)
    served = Served(make_tools)
    async with served as client:
        waiting = asyncio.create_task(client.post("/v1/reason", json=ASK))
        await served.engine.until_open(1)
        send_sigterm()
        await asyncio.sleep(0.2)
        assert not served.ended.done()
        send_sigterm()
        check_error(await waiting, 503, "engine_dead")
        await asyncio.wait_for(served.ended, 5)
