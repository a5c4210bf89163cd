"""Engines as production starts them, with a runner, a graph mode and latent-step kernels of the test's choice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from benchmarks.runners import Runner, chosen
from contracts.manifest import BlockRule
from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.settings import RunnerSettings

Graphs = Literal["eager", "PIECEWISE", "FULL_AND_PIECEWISE"]


def read(folder: Path, *, is_cpu: bool, rule: BlockRule | None = None) -> tuple[Checkpoint, GenerationDefaults]:
    checkpoint = read_checkpoint(folder, rule=rule, is_cpu=is_cpu)
    return checkpoint, read_generation_defaults(checkpoint.folder, checkpoint.config)


@asynccontextmanager
async def running(
    folder: Path, *, is_cpu: bool, runner: Runner, graphs: Graphs, worker: str, **settings: Any
) -> AsyncIterator[VllmEngine]:
    """float32, eight requests at once, 64 MiB of KV cache. ``worker``: a class of ``tests.gpu.workers``.

    Little of a GPU must be free: the engine before may just be giving its memory back, and others may run beside.
    """
    checkpoint, defaults = read(folder, is_cpu=is_cpu, rule=settings.get("latent_exit"))
    told = {"dtype": "float32", "max_num_seqs": 8, "kv_cache_mib": 64, "max_model_len": 2048, **settings}
    told.setdefault("gpu_memory_utilization", 0.1)
    told["enforce_eager"] = graphs == "eager"
    arguments: dict[str, Any] = {"worker_cls": f"tests.gpu.workers.{worker}"}
    if graphs != "eager":
        arguments["compilation_config"] = {"cudagraph_mode": graphs}
    with chosen(runner):
        engine = VllmEngine.start(
            RunnerSettings(model=checkpoint.folder, **told), checkpoint, defaults, arguments=arguments
        )
    try:
        await engine.prepare()
        yield engine
    finally:
        await engine.aclose()
