"""Engines on the checkpoints of the golden data. An engine takes long to start: few are."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from contracts.manifest import BlockRule
from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.settings import RunnerSettings
from tests.engine_processes import fork_engine_processes
from tests.parity.plain import Plain
from tests.parity.stepper import Stepper, running_stepper

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
        fork_engine_processes()
        engine = VllmEngine.start(RunnerSettings(model=checkpoint.folder, **told), checkpoint, defaults)
        try:
            yield engine
        finally:
            await engine.aclose()

    return start


StepperOf = Callable[..., Stepper]


@pytest.fixture(scope="package")
def stepper_of(checkpoint_of: ReadCheckpoint) -> Iterator[StepperOf]:
    """``stepper_of("b", block_size=32)``: an engine in this process, the same one whenever the same is asked for."""
    started: dict[object, Stepper] = {}
    with ExitStack() as stack:

        def get(name: str, *, rule: BlockRule | None = None, **settings: object) -> Stepper:
            key = (name, rule, *sorted(settings.items()))
            if key not in started:
                checkpoint, defaults = checkpoint_of(name, rule)
                started[key] = stack.enter_context(running_stepper(checkpoint, defaults, **settings))
            started[key].start_over()
            return started[key]

        yield get


PlainOf = Callable[..., Plain]


@pytest.fixture(scope="session")
def plain_of(checkpoint_of: ReadCheckpoint) -> PlainOf:
    """``plain_of("b")``: the plain engine, loaded once."""
    loaded: dict[object, Plain] = {}

    def get(name: str, *, rule: BlockRule | None = None) -> Plain:
        if (name, rule) not in loaded:
            loaded[name, rule] = Plain.load(*checkpoint_of(name, rule))
        return loaded[name, rule]

    return get
