"""Engines as production starts them, with a runner, a graph mode and latent-step kernels of the test's choice."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

from contracts.manifest import BlockRule
from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.engine import vllm_engine
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.settings import RunnerSettings

Runner = Literal["V1", "V2"]
Graphs = Literal["eager", "PIECEWISE", "FULL_AND_PIECEWISE"]
RUNNER_VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"


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
    with _told(runner, graphs, worker):
        engine = VllmEngine.start(RunnerSettings(model=checkpoint.folder, **told), checkpoint, defaults)
    try:
        await engine.prepare()
        yield engine
    finally:
        await engine.aclose()


@contextmanager
def _told(runner: Runner, graphs: Graphs, worker: str) -> Iterator[None]:
    """What the settings of a runner do not say: vLLM's runner, piecewise graphs alone, and a worker that counts."""
    arguments = vllm_engine.engine_arguments
    before = os.environ.get(RUNNER_VARIABLE)

    def changed(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = arguments(*args, **kwargs)
        if graphs != "eager":
            made["compilation_config"] = {"cudagraph_mode": graphs}
        return {**made, "worker_cls": f"tests.gpu.workers.{worker}"}

    os.environ[RUNNER_VARIABLE] = "1" if runner == "V2" else "0"
    vllm_engine.engine_arguments = changed
    try:
        yield
    finally:
        vllm_engine.engine_arguments = arguments
        os.environ.pop(RUNNER_VARIABLE)
        if before is not None:
            os.environ[RUNNER_VARIABLE] = before
