"""What cannot be served is refused in one line, by the model class and by whoever starts an engine."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import CUDAGraphMode
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from model_runner.model.supported import refuse_unsupported


def config_with(**changes: Any) -> Any:
    """vLLM's configuration of an ordinary engine, with one field changed wherever it is."""
    parts = {
        "parallel_config": {
            "pipeline_parallel_size": 1,
            "use_ubatching": False,
            "decode_context_parallel_size": 1,
            "prefill_context_parallel_size": 1,
        },
        "cache_config": {"cache_dtype": "auto"},
        "model_config": {"dtype": torch.bfloat16},
        "compilation_config": {"cudagraph_mode": CUDAGraphMode.FULL_AND_PIECEWISE},
        "attention_config": {"backend": AttentionBackendEnum.FLASH_ATTN},
        "speculative_config": None,
        "kv_transfer_config": None,
    }
    for name, value in changes.items():
        owner = next((part for part in parts.values() if isinstance(part, dict) and name in part), parts)
        owner[name] = value
    return SimpleNamespace(
        **{name: SimpleNamespace(**part) if isinstance(part, dict) else part for name, part in parts.items()}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cache_dtype": "bfloat16"},
        {"cudagraph_mode": CUDAGraphMode.PIECEWISE},
        {"cudagraph_mode": CUDAGraphMode.FULL_DECODE_ONLY},
        {"cudagraph_mode": CUDAGraphMode.NONE},
        {"cudagraph_mode": None},
        {"backend": None},
        {"backend": AttentionBackendEnum.TRITON_ATTN},
    ],
    ids=str,
)
def test_supported(changes: dict[str, Any]) -> None:
    refuse_unsupported(config_with(**changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallelism (2 stages)"),
        ({"speculative_config": SimpleNamespace(method="ngram")}, "speculative decoding"),
        ({"cache_dtype": "fp8"}, "a KV cache of fp8"),
        ({"cache_dtype": "float16"}, "a KV cache of float16"),
        ({"use_ubatching": True}, "micro-batches"),
        ({"decode_context_parallel_size": 2}, "decode context parallelism (2 ranks)"),
        ({"prefill_context_parallel_size": 4}, "prefill context parallelism (4 ranks)"),
        ({"kv_transfer_config": SimpleNamespace()}, "a KV connector"),
        ({"cudagraph_mode": CUDAGraphMode.FULL}, "use FULL_AND_PIECEWISE"),
        ({"backend": AttentionBackendEnum.FLASHINFER}, "the attention backend FLASHINFER"),
    ],
    ids=str,
)
def test_refused_in_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=r"^ILVR cannot be served with [^\n]+$") as error:
        refuse_unsupported(config_with(**changes))
    assert named in str(error.value)


def test_graphs_of_the_whole_model_class_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come by a variable, which is no part of the configuration."""
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "0")
    refuse_unsupported(config_with())
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    with pytest.raises(ValueError, match=r"^ILVR cannot be served with VLLM_USE_BREAKABLE_CUDAGRAPH=1: [^\n]+0$"):
        refuse_unsupported(config_with())
