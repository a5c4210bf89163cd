"""What the worker adds to vLLM's, on stand-ins for what it reads of a runner. On engines: ``tests/parity``."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import CUDAGraphMode

from model_runner.model.keys import ABLATION_KEY
from model_runner.model.worker import LatentWorkerMixin

BLOCK_SIZE = 16


class NoWorker:
    """vLLM's part of a worker, which has nothing to do here."""

    def initialize_from_config(self, kv_cache_config: Any) -> None: ...


class Worker(LatentWorkerMixin, NoWorker):
    """With one KV cache group on either runner, unless told otherwise; only the attributes of that runner are there."""

    def __init__(
        self,
        runner: str,
        *,
        block_sizes: list[int] | None = None,
        kernel_block_sizes: list[int] | None = None,
        backend: str = "FLASH_ATTN",
    ) -> None:
        self.use_v2_model_runner = runner == "V2"
        self.cache_config = SimpleNamespace(block_size=BLOCK_SIZE)
        block_sizes, kernel_block_sizes = block_sizes or [BLOCK_SIZE], kernel_block_sizes or [BLOCK_SIZE]
        group = SimpleNamespace(backend=SimpleNamespace(get_name=lambda: backend))
        self.model_runner = SimpleNamespace(attn_groups=[[group]])
        if self.use_v2_model_runner:
            self.model_runner.block_tables = SimpleNamespace(block_sizes=block_sizes)
            self.model_runner.kernel_block_sizes = kernel_block_sizes
        else:
            tables = SimpleNamespace(block_tables=[SimpleNamespace(block_size=size) for size in block_sizes])
            self.model_runner.input_batch = SimpleNamespace(block_table=tables)
            self.model_runner._kernel_block_sizes = kernel_block_sizes


@pytest.fixture(params=["V1", "V2"])
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("backend", ["CPU_ATTN", "FLASH_ATTN", "TRITON_ATTN"])
def test_attention_by_which_latents_are_found(runner: str, backend: str) -> None:
    Worker(runner, backend=backend)._check_attention()


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"block_sizes": [16, 16], "kernel_block_sizes": [16, 16]}, r"one KV cache group .* found \[16, 16\]"),
        ({"block_sizes": [16, 32], "kernel_block_sizes": [16, 32]}, r"one KV cache group .* found \[16, 32\]"),
        ({"block_sizes": [32], "kernel_block_sizes": [32]}, r"cache block size 16, found \[32\]"),
        ({"kernel_block_sizes": [8]}, r"cache block size 16, found \[16\] and in kernels \[8\]$"),
        ({"backend": "FLASHINFER"}, r"^ILVR cannot be served with the attention backend FLASHINFER: "),  # vLLM's choice
    ],
    ids=str,
)
def test_attention_by_which_they_are_not(runner: str, told: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as error:
        Worker(runner, **told)._check_attention()
    assert "\n" not in str(error.value)


def test_the_manager_of_v2_is_gated(monkeypatch: pytest.MonkeyPatch) -> None:
    """On V1 an engine shows it (``test_graph_gate.py``). Here a manager that has a FULL graph for every decode step."""
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Ctrl-C stays ours
    worker = Worker("V2")
    worker.device = "cpu"
    worker.vllm_config = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=2),
        model_config=SimpleNamespace(get_hidden_size=lambda: 4, dtype=torch.float32),
        additional_config={ABLATION_KEY: "none"},
    )
    model = SimpleNamespace(has_newcomers=False, counters=SimpleNamespace(is_tracing=False))
    manager = SimpleNamespace(
        dispatch=lambda num_reqs, num_tokens, uniform_token_count, *_: SimpleNamespace(
            cg_mode=CUDAGraphMode.FULL if uniform_token_count == 1 else CUDAGraphMode.PIECEWISE
        )
    )
    worker.model_runner.get_model = lambda: model
    worker.model_runner.cudagraph_manager = manager
    worker.initialize_from_config(SimpleNamespace(num_blocks=3))
    modes = []
    for model.has_newcomers, model.counters.is_tracing in (
        (False, False),
        (True, False),
        (False, True),
        (False, False),
    ):
        modes.append(manager.dispatch(2, 2, 1, num_active_loras=0, max_query_len=1).cg_mode.name)
    assert modes == ["FULL", "PIECEWISE", "PIECEWISE", "FULL"]
