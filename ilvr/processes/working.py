"""A runner at work beside its pages, until it is told to end or cannot go on."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from contracts.broker import Broker
from ilvr.processes.listener import address
from ilvr.processes.runner_pages import runner_pages
from ilvr.processes.signals import StopSignals
from ilvr.processes.web_server import WebServer
from ilvr.processes.work import running
from model_runner.engine.base import Engine
from model_runner.runner import Runner

log = logging.getLogger(__name__)

DEFECT_EXIT = 1
ENGINE_LOST_EXIT = 3
LOOK_S = 0.25  # at what has no event of its own


async def work_until_stopped(
    runner: Runner,
    engine: Engine,
    broker: Broker,
    registry: CollectorRegistry,
    listener: socket.socket,
    *,
    grace_s: float,
    on_ready: Callable[[str], None],
) -> int:
    """Returns the exit status: 0 after a signal, 3 when the engine is gone; in both cases no job is left behind.

    After a signal what runs has the grace to finish, unless a second signal comes; what is left then is handed back.
    Closes the broker, not the engine.
    """
    signals = StopSignals()
    async with running(runner.run()) as work:
        await runner.announce()
        tell = asyncio.create_task(_tell_when_ready(runner, lambda: on_ready(address(listener))))
        status = asyncio.get_running_loop().create_future()

        async def stop() -> None:
            status.set_result(await _until_stop(work, engine, signals))
            tell.cancel()
            await _drain(runner, signals, grace_s if status.result() == 0 else 0.0)

        pages = WebServer(runner_pages(registry, runner.why_not_ready), listener, grace_s=0.0)
        await pages.run_until(stop(), signals, end_open=lambda: asyncio.sleep(0))
    await broker.aclose()
    return int(status.result())


async def _until_stop(work: "asyncio.Task[Any]", engine: Engine, signals: StopSignals) -> int:
    while True:
        if signals.asked.is_set():
            return 0
        if not await engine.is_alive():
            log.error("the engine process is gone: its jobs are handed back, and this runner ends")
            return ENGINE_LOST_EXIT
        if work.done():  # its trace is in the log
            return DEFECT_EXIT
        await asyncio.wait({work}, timeout=LOOK_S)


async def _drain(runner: Runner, signals: StopSignals, grace_s: float) -> None:
    draining = asyncio.create_task(runner.drain(grace_s))
    insisted = asyncio.create_task(signals.insisted.wait())
    await asyncio.wait({draining, insisted}, return_when=asyncio.FIRST_COMPLETED)
    insisted.cancel()
    if not draining.done():
        await runner.drain(0.0)
    await draining


async def _tell_when_ready(runner: Runner, tell: Callable[[], None]) -> None:
    while reason := runner.why_not_ready():
        log.warning("not ready yet: %s", reason)
        await asyncio.sleep(LOOK_S)
    tell()
