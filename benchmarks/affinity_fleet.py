"""Redis, two runners, and two gateways that differ in one setting: real processes on loopback."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import ILVR, free_ports, process, until_ready


@dataclass(frozen=True)
class Fleet:
    """``gateways``: URLs, by the seconds for which a job waits for a runner that knows its pictures."""

    gateways: dict[float, str]
    runners: list[str]


@contextmanager
def fleet(affinities_s: Sequence[float], num_runners: int) -> Iterator[Fleet]:
    """All ready; nothing of it is left at the end. Raises ``RuntimeError`` with the log of what did not start."""
    server = shutil.which("redis-server")
    if server is None:
        raise RuntimeError("redis-server is not installed")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        redis, *ports = free_ports(1 + len(affinities_s) + num_runners)
        redis_command = [server, "--port", str(redis), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        stack.enter_context(process("redis", redis_command, folder))
        url = {"ILVR_BROKER_REDIS_URL": f"redis://127.0.0.1:{redis}/0"}
        gateways: dict[float, str] = {}
        runners: list[str] = []
        started: list[tuple[str, str]] = []
        for index in range(num_runners):
            port = ports.pop()
            name, command = f"runner-{index}", [ILVR, "runner", "--metrics-port", str(port), "--kv-cache-mib", "256"]
            stack.enter_context(process(name, command, folder, **url))
            runners.append(f"http://127.0.0.1:{port}")
            started.append((name, runners[-1]))
        for affinity_s in affinities_s:
            port = ports.pop()
            name, command = f"gateway-{affinity_s:g}", [ILVR, "gateway", "--port", str(port)]
            setting = {"ILVR_BROKER_REDIS_AFFINITY_S": str(affinity_s)}
            stack.enter_context(process(name, command, folder, **url, **setting))
            gateways[affinity_s] = f"http://127.0.0.1:{port}"
            started.append((name, gateways[affinity_s]))
        for name, address in started:
            until_ready(f"{address}/readyz", folder / f"{name}.log")
        yield Fleet(gateways, runners)
