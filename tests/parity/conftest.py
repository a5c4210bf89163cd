"""Checkpoints made from the golden data, and engines on them. An engine takes long to start: few are."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.settings import RunnerSettings
from tests.parity.traces import GOLDEN, NAMES


@pytest.fixture(scope="session")
def golden_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders by name; their weights are verified by hash as they are made."""
    out = tmp_path_factory.mktemp("golden")
    subprocess.run([sys.executable, str(GOLDEN / "build_ckpts.py"), str(out)], check=True, capture_output=True)
    return {name: out / f"ckpt-{name}" for name in NAMES}


@pytest.fixture(scope="session", autouse=True)
def _free_disk(golden_folders: dict[str, Path]) -> AsyncIterator[None]:
    yield
    for folder in golden_folders.values():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def checkpoint_of(golden_folders: dict[str, Path]) -> Callable[[str], tuple[Checkpoint, GenerationDefaults]]:
    def read(name: str) -> tuple[Checkpoint, GenerationDefaults]:
        checkpoint = read_checkpoint(golden_folders[name], is_cpu=True)
        return checkpoint, read_generation_defaults(checkpoint.folder, checkpoint.config)

    return read


StartVllm = Callable[..., AbstractAsyncContextManager[VllmEngine]]


@pytest.fixture(scope="session")
def start_vllm(checkpoint_of: Callable[[str], tuple[Checkpoint, GenerationDefaults]]) -> StartVllm:
    """``async with start_vllm("b", block_size=32) as engine``; float32, 64 MiB of KV cache."""

    @asynccontextmanager
    async def start(name: str, **settings: object) -> AsyncIterator[VllmEngine]:
        checkpoint, defaults = checkpoint_of(name)
        told = {"dtype": "float32", "max_num_seqs": 8, "kv_cache_mib": 64, "max_model_len": 2048, **settings}
        engine = VllmEngine.start(RunnerSettings(model=checkpoint.folder, **told), checkpoint, defaults)
        try:
            yield engine
        finally:
            await engine.aclose()

    return start
