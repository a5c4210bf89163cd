"""Who is measured: each a server with an address, all up at the same time, of which one at a time is asked."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil

from benchmarks.decode.models import BenchModel
from benchmarks.processes import ILVR, free_ports, process, until_ready

EMBEDDED, REDIS, STOCK, SEQUENTIAL = "ours", "ours on Redis", "vLLM's server", "sequential"
NAMES = (EMBEDDED, REDIS, STOCK, SEQUENTIAL)


@dataclass(frozen=True)
class Contender:
    """``pids``: of the processes that were started for it; there are others below them."""

    name: str
    url: str
    model: str
    pids: tuple[int, ...]

    def memory_mib(self) -> float:
        """Of all its processes; of what they share with any other, their part."""
        processes = [psutil.Process(pid) for pid in self.pids]
        processes += [child for parent in processes for child in parent.children(recursive=True)]
        return float(sum(one.memory_full_info().pss for one in processes)) / 2**20


def endless_folder(model: BenchModel, folder: Path) -> Path:
    """The checkpoint (linked to) with an end token that is never chosen: answers are as long as was asked."""
    source = model.checkpoint.folder
    here = folder / source.name
    here.mkdir()
    for file in source.iterdir():
        if file.name != "generation_config.json":
            (here / file.name).symlink_to(file.resolve())
    content = json.loads((source / "generation_config.json").read_text())
    content["eos_token_id"] = [model.checkpoint.image_token_id]
    (here / "generation_config.json").write_text(json.dumps(content))
    return here


@contextmanager
def contenders(model: BenchModel, num_threads: int) -> Iterator[dict[str, Contender]]:
    """All ready. Raises ``RuntimeError`` with the log of what did not start."""
    server = shutil.which("redis-server")
    if server is None:
        raise RuntimeError("redis-server is not installed")
    with ExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory()))
        folder = endless_folder(model, logs)
        of_model = ["--model", str(folder), "--dtype", model.dtype]
        redis, gateway, runner, *ports = free_ports(6)
        shared = {"ILVR_BROKER_REDIS_URL": f"redis://127.0.0.1:{redis}/0"}

        def start(name: str, command: list[str], **variables: str) -> int:
            variables = {"OMP_NUM_THREADS": str(num_threads), **variables}
            return stack.enter_context(process(name, command, logs, **variables))

        def peer(name: str) -> list[str]:
            return [shutil.which("python", path=str(Path(ILVR).parent)) or "python", "-m", f"benchmarks.peers.{name}"]

        store = [server, "--port", str(redis), "--bind", "127.0.0.1", "--dir", str(logs), "--save", ""]
        parts = {
            EMBEDDED: (
                ports[0],
                "/readyz",
                [start("serve", [ILVR, "serve", *of_model, "--port", str(ports[0])])],
            ),
            REDIS: (
                gateway,
                "/readyz",
                [
                    start("redis", store),
                    start("gateway", [ILVR, "gateway", "--port", str(gateway)], **shared),
                    start("runner", [ILVR, "runner", *of_model, "--metrics-port", str(runner)], **shared),
                ],
            ),
            STOCK: (ports[1], "/health", [start("stock", [*peer("stock"), *of_model, "--port", str(ports[1])])]),
            SEQUENTIAL: (
                ports[2],
                "/health",
                [start("sequential", [*peer("sequential"), *of_model, "--port", str(ports[2])])],
            ),
        }
        found = {}
        for log, (name, (port, probe, pids)) in zip(
            ("serve", "runner", "stock", "sequential"), parts.items(), strict=True
        ):
            url = f"http://127.0.0.1:{port}"
            until_ready(url + probe, logs / f"{log}.log")
            known = httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]["id"]
            found[name] = Contender(name, url, known, tuple(pids))
        yield found
