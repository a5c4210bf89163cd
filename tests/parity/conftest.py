"""Engines on the checkpoints of the golden data. An engine takes long to start: few are."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from contracts.manifest import BlockRule
from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.settings import RunnerSettings

ReadCheckpoint = Callable[..., tuple[Checkpoint, GenerationDefaults]]


@pytest.fixture(scope="session")
def checkpoint_of(golden_folders: dict[str, Path]) -> ReadCheckpoint:
    def read(name: str, rule: BlockRule | None = None) -> tuple[Checkpoint, GenerationDefaults]:
        checkpoint = read_checkpoint(golden_folders[name], rule=rule, is_cpu=True)
        return checkpoint, read_generation_defaults(checkpoint.folder, checkpoint.config)

    return read


StartVllm = Callable[..., AbstractAsyncContextManager[VllmEngine]]


@pytest.fixture(scope="session")
def start_vllm(checkpoint_of: ReadCheckpoint) -> StartVllm:
    """``async with start_vllm("b", block_size=32) as engine``; float32, 64 MiB of KV cache."""

    @asynccontextmanager
    async def start(name: str, **settings: object) -> AsyncIterator[VllmEngine]:
        checkpoint, defaults = checkpoint_of(name, settings.get("latent_exit"))
        told = {"dtype": "float32", "max_num_seqs": 8, "kv_cache_mib": 64, "max_model_len": 2048, **settings}
        engine = VllmEngine.start(RunnerSettings(model=checkpoint.folder, **told), checkpoint, defaults)
        try:
            yield engine
        finally:
            await engine.aclose()

    return start
