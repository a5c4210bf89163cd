"""Which of vLLM's model runners serves, and what the engine is told on a CPU and on a GPU. Needs no GPU."""

import os

import pytest
import torch

from contracts.errors import BadSettings
from model_runner.checkpoint import Checkpoint
from model_runner.engine.vllm_arguments import engine_arguments
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.environment import set_gpu_environment, set_runner_environment
from model_runner.generation import read_generation_defaults
from model_runner.settings import load_settings

VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"


@pytest.mark.parametrize(
    ("told", "is_cpu", "expected"),
    [
        (None, True, False),
        (None, False, True),
        ("1", True, True),
        ("0", False, False),
    ],
)
def test_the_choice_is_made_once_and_vllm_reads_the_same(
    told: str | None, is_cpu: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vllm.envs

    monkeypatch.setenv(VARIABLE, told or "")  # so that it is set back
    if told is None:
        monkeypatch.delenv(VARIABLE)
    assert set_runner_environment(is_cpu=is_cpu) is expected
    assert vllm.envs.environment_variables[VARIABLE]() is expected


def test_a_value_that_vllm_does_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "true")
    with pytest.raises(BadSettings, match=r"^VLLM_USE_V2_MODEL_RUNNER is 'true'; vLLM reads 0 or 1$"):
        set_runner_environment(is_cpu=True)


@pytest.mark.parametrize(("uses_v2", "suffix"), [(False, ""), (True, "V2")])
def test_processors_are_of_the_runner(uses_v2: bool, suffix: str, maze_checkpoint: Checkpoint) -> None:
    for mode, with_rows in (("none", False), ("noise", not uses_v2)):
        settings = load_settings(model=maze_checkpoint.folder, latent_ablation=mode)
        told = engine_arguments(settings, maze_checkpoint, is_cpu=not uses_v2, uses_v2=uses_v2)
        names = [one.rpartition(":")[2] for one in told["logits_processors"]]
        assert names == [f"LatentOff{suffix}"] + ["FeedRows"] * with_rows


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [("auto", "FLASH_ATTN"), ("bfloat16", "FLASH_ATTN"), ("float16", "FLASH_ATTN"), ("float32", "TRITON_ATTN")],
)
def test_on_a_gpu_the_attention_backend_and_the_graphs_are_named(
    dtype: str, backend: str, maze_checkpoint: Checkpoint
) -> None:
    settings = load_settings(model=maze_checkpoint.folder, dtype=dtype)
    told = engine_arguments(settings, maze_checkpoint, is_cpu=False, uses_v2=True)
    assert told["attention_backend"] == backend
    assert told.get("mm_encoder_attn_backend") == ("TORCH_SDPA" if dtype == "float32" else None)
    assert told["compilation_config"] == {"cudagraph_mode": "FULL_AND_PIECEWISE"}
    eager = load_settings(model=maze_checkpoint.folder, dtype=dtype, enforce_eager=True)
    assert "compilation_config" not in engine_arguments(eager, maze_checkpoint, is_cpu=False, uses_v2=True)
    on_cpu = engine_arguments(settings, maze_checkpoint, is_cpu=True, uses_v2=False)
    assert not {"attention_backend", "compilation_config"} & set(on_cpu)


@pytest.mark.parametrize(("is_cpu", "asked", "expected"), [(False, None, {}), (False, 0.4, {0.4}), (True, 0.4, {})])
def test_a_gpu_can_be_shared(
    is_cpu: bool, asked: float | None, expected: set[float], maze_checkpoint: Checkpoint
) -> None:
    """What is not given is vLLM's to choose, and a CPU has no such memory."""
    settings = load_settings(model=maze_checkpoint.folder, gpu_memory_utilization=asked)
    told = engine_arguments(settings, maze_checkpoint, is_cpu=is_cpu, uses_v2=not is_cpu)
    assert {told[name] for name in told if name == "gpu_memory_utilization"} == set(expected)


@pytest.mark.parametrize("is_cpu", [True, False])
def test_scheduling_is_asynchronous_on_a_gpu(is_cpu: bool, maze_checkpoint: Checkpoint) -> None:
    """A CPU has none; each way of scheduling has its class."""
    settings = load_settings(model=maze_checkpoint.folder)
    told = engine_arguments(settings, maze_checkpoint, is_cpu=is_cpu, uses_v2=not is_cpu)
    assert told["async_scheduling"] is not is_cpu
    assert told["scheduler_cls"].rpartition(".")[2] == ("ILVRScheduler" if is_cpu else "AsyncILVRScheduler")


def test_float32_is_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRITON_F32_DEFAULT", "VLLM_WORKER_MULTIPROC_METHOD"):
        monkeypatch.setenv(name, "")  # so that it is set back
        monkeypatch.delenv(name)
    set_gpu_environment(is_float32=False)
    assert "TRITON_F32_DEFAULT" not in os.environ
    set_gpu_environment(is_float32=True)
    assert os.environ["TRITON_F32_DEFAULT"] == "ieee"
    assert not torch.backends.cuda.matmul.allow_tf32


def test_what_cannot_be_served_stops_the_start_before_any_process_is_made(
    maze_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for the user, where the engine process would show a traceback."""
    import vllm.engine.arg_utils as arguments

    made = arguments.AsyncEngineArgs.create_engine_config

    def with_fp8(self: object, *args: object, **kwargs: object) -> object:
        config = made(self, *args, **kwargs)
        config.cache_config.cache_dtype = "fp8"  # as a checkpoint's quantisation can ask for
        return config

    monkeypatch.setattr(arguments.AsyncEngineArgs, "create_engine_config", with_fp8)
    settings = load_settings(model=maze_checkpoint.folder)
    defaults = read_generation_defaults(maze_checkpoint.folder, maze_checkpoint.config)
    with pytest.raises(BadSettings, match=r"^ILVR cannot be served with a KV cache of fp8: [^\n]+$"):
        VllmEngine.start(settings, maze_checkpoint, defaults)
