"""Redis, gateways and runners as real processes on loopback; the first of each reaches Redis through a proxy."""

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import httpx

from tests.broker.redis_server import RedisServer, free_port
from tests.faults.in_redis import held_in_redis
from tests.faults.process import Process
from tests.faults.proxy import Proxy

ILVR = str(Path(sys.executable).parent / "ilvr")
GATEWAY_START_S = 60.0
SETTLE_S = 30.0
RunnerCommand = Callable[[int, int], Sequence[str]]  # of its index and the port of its pages


class Fleet:
    """``variables`` are those of all its processes. Runners are started by ``runner_command``."""

    def __init__(
        self,
        folder: Path,
        runner_command: RunnerCommand,
        variables: Mapping[str, str],
        *,
        num_gateways: int = 2,
        num_runners: int = 2,
        runner_start_s: float,
        is_persistent: bool = True,
        output: Path | None = None,
    ) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis", is_persistent=is_persistent)
        self._runner_command = runner_command
        self._runner_start_s = runner_start_s
        self._variables = dict(variables)
        self._ports = [free_port() for _ in range(num_gateways + num_runners)]
        self._num_gateways = num_gateways
        self._output = output
        self.gateway_proxy = Proxy(self.redis.port)
        self.runner_proxy = Proxy(self.redis.port)
        self.gateways: list[Process] = []
        self.runners: list[Process] = []

    @property
    def urls(self) -> list[str]:
        """Of the gateways."""
        return [f"http://127.0.0.1:{port}" for port in self._ports[: self._num_gateways]]

    @property
    def runner_urls(self) -> list[str]:
        """Of the runners' pages."""
        return [f"http://127.0.0.1:{port}" for port in self._ports[self._num_gateways :]]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Fleet"]:
        """All of it, ready; nothing of it is left at the end."""
        with self.redis:
            async with self.gateway_proxy, self.runner_proxy:
                self.gateways = [self._gateway(index) for index in range(self._num_gateways)]
                self.runners = [self._runner(index) for index in range(len(self._ports) - self._num_gateways)]
                try:
                    for process in (*self.gateways, *self.runners):
                        process.start()
                    await self.until_ready()
                    yield self
                finally:
                    for process in (*self.gateways, *self.runners):
                        process.destroy()

    async def until_ready(self) -> None:
        """Every process of it that runs."""
        async with httpx.AsyncClient(timeout=5) as http:
            for urls, processes, wait_s in (
                (self.runner_urls, self.runners, self._runner_start_s),
                (self.urls, self.gateways, GATEWAY_START_S),  # which are not ready before a runner is
            ):
                for url, process in zip(urls, processes, strict=True):
                    await _until_ok(http, f"{url}/readyz", process, wait_s)

    async def restart(self, process: Process) -> None:
        """As a supervisor does when it has ended."""
        await process.until_ended()
        process.start()
        await self.until_ready()

    async def until_settled(self) -> None:
        """Until every slot is free: nothing waits, nothing runs, nobody reads.

        Raises ``AssertionError`` that says what is still held.
        """
        deadline = time.monotonic() + SETTLE_S
        async with httpx.AsyncClient(timeout=5) as http:
            while held := await self._held(http):
                if time.monotonic() > deadline:
                    raise AssertionError(f"after {SETTLE_S:.0f} s there is still {held}")
                await asyncio.sleep(0.2)

    async def _held(self, http: httpx.AsyncClient) -> dict[str, float]:
        held = await held_in_redis(self.redis.url)
        for url, process, names in (
            *((url, gateway, GATEWAY_GAUGES) for url, gateway in zip(self.urls, self.gateways, strict=True)),
            *((url, runner, RUNNER_GAUGES) for url, runner in zip(self.runner_urls, self.runners, strict=True)),
        ):
            text = (await http.get(f"{url}/metrics")).text
            held |= {f"{process.name} {name}": value for name in names if (value := gauge(text, name))}
        return held

    def _gateway(self, index: int) -> Process:
        port = self._ports[index]
        command = [ILVR, "gateway", "--port", str(port)]
        return self._process(f"gateway-{index}", command, self.gateway_proxy.port if index == 0 else self.redis.port)

    def _runner(self, index: int) -> Process:
        command = self._runner_command(index, self._ports[self._num_gateways + index])
        return self._process(f"runner-{index}", command, self.runner_proxy.port if index == 0 else self.redis.port)

    def _process(self, name: str, command: Sequence[str], redis_port: int) -> Process:
        variables = {**self._variables, "ILVR_BROKER_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}
        return Process(name, command, variables, self.folder, ready="is ready", output=self._output)


GATEWAY_GAUGES = ("ilvr_gateway_responses_in_flight", "ilvr_gateway_stream_readers")
RUNNER_GAUGES = ("ilvr_runner_responses_in_flight",)


def gauge(text: str, name: str) -> float:
    """Its value in the text of ``/metrics``. Raises ``AssertionError``: a gauge that is not there cannot be 0."""
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"{name} is not exported"
    return float(found[1])


async def _until_ok(http: httpx.AsyncClient, url: str, process: Process, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    told = "nothing"
    while time.monotonic() < deadline and process.status is None:
        try:
            answer = await http.get(url)
        except httpx.TransportError as error:
            told = repr(error)
        else:
            if answer.status_code == 200:
                return
            told = answer.text
        await asyncio.sleep(0.25)
    raise AssertionError(f"{process.name} (status {process.status}) says {told}:\n{process.output()[-3000:]}")
