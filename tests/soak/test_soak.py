"""The gateway at twice its capacity: it refuses what is too much, answers the rest, and its memory stays as it is."""

import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.broker.redis_server import RedisServer
from tests.soak.load import Load
from tests.soak.server import CAPACITY

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20
WARM_UP = 0.4  # of the time; every bound on what is kept is reached then
# A connection is not used again when the server may be about to close it, which it does after five seconds.
LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
MAX_GROWTH_MIB = 4.0  # of the median of the last quarter of the time over that of the first after the warm-up


@contextmanager
def server(*arguments: str) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-m", "tests.soak.server", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield psutil.Process(process.pid), f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.parametrize("seconds", [20, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("broker", ["embedded", "redis"])
async def test_memory_is_flat_at_twice_the_capacity(broker: str, seconds: int, tmp_path: Path) -> None:
    rss_mib: list[float] = []
    with ExitStack() as stack:
        arguments = [stack.enter_context(RedisServer(tmp_path)).url] if broker == "redis" else []
        process, url = stack.enter_context(server(*arguments))
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=LIMITS) as client:
            load = Load(client, per_s=2 * CAPACITY)
            running = asyncio.create_task(load.run(seconds))
            while not running.done():
                rss_mib.append(process.memory_info().rss / MIB)
                await asyncio.wait([running], timeout=0.5)
            await running
            await all_have_ended(client)
    warm = rss_mib[int(len(rss_mib) * WARM_UP) :]
    quarter = max(len(rss_mib) // 4, 1)
    first, last = statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])
    print(
        f"{broker}, {seconds} s at {2 * CAPACITY:.0f} requests a second; seen by clients: {dict(load.outcomes)}; "
        f"the slowest answer took {load.slowest_s:.1f} s"
    )
    print(f"RSS in MiB: at the start {rss_mib[0]:.1f}, then {first:.1f} and {last:.1f}, at most {max(rss_mib):.1f}")
    assert last - first < MAX_GROWTH_MIB
    assert not [outcome for outcome in load.outcomes if outcome.startswith("5") or outcome == "response.failed"]
    assert load.outcomes["200"] > 0.5 * CAPACITY * seconds
    assert load.outcomes["429"] > 0.3 * CAPACITY * seconds


async def all_have_ended(client: httpx.AsyncClient) -> None:
    """Also those whose clients have left a moment ago."""
    async with asyncio.timeout(10):
        while True:
            text = (await client.get("/metrics")).text
            if "ilvr_gateway_responses_in_flight 0.0" in text and "ilvr_gateway_stream_readers 0.0" in text:
                return
            await asyncio.sleep(0.1)
