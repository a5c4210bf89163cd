"""What the latent state cannot go together with, refused at the start in one line.

The state is addressed by KV block and kept by the model class on one device. Whatever brings KV blocks from elsewhere,
computes a step in parts or guesses tokens ahead would need the state to follow, and would be wrong without an error.
"""

import os
from collections.abc import Iterator
from typing import Any

ATTENTION_BACKENDS = ("CPU_ATTN", "FLASH_ATTN", "TRITON_ATTN")  # their metadata tells slots, block tables and lengths


def refuse_unsupported(vllm_config: Any) -> None:
    """Raises ``ValueError`` with one line if vLLM was configured for something that latent blocks would get wrong."""
    for is_asked_for, line in _refusals(vllm_config):
        if is_asked_for:
            raise ValueError(f"ILVR cannot be served with {line}")


def _refusals(config: Any) -> Iterator[tuple[bool, str]]:
    parallel, cache = config.parallel_config, config.cache_config
    size = parallel.pipeline_parallel_size
    yield size > 1, f"pipeline parallelism ({size} stages): latents are fed back from the last layer to the first"
    yield (
        config.speculative_config is not None,
        "speculative decoding: a latent block has no tokens to guess; leave out the speculative configuration",
    )
    own_dtype = str(config.model_config.dtype).removeprefix("torch.")
    yield (
        cache.cache_dtype not in ("auto", own_dtype),
        f"a KV cache of {cache.cache_dtype}: latents are exact only in the model's own {own_dtype}; "
        "set the KV cache dtype to the model's",
    )
    yield bool(parallel.use_ubatching), "micro-batches (dual batch overlap): latents are fed back in whole batches"
    for name in ("decode", "prefill"):
        size = getattr(parallel, f"{name}_context_parallel_size")
        yield size > 1, f"{name} context parallelism ({size} ranks): each holds only a part of a request's positions"
    yield (
        config.kv_transfer_config is not None,
        "a KV connector or KV offloading: KV blocks from elsewhere come without their latents",
    )
    mode = config.compilation_config.cudagraph_mode
    yield (
        mode is not None and mode.mixed_mode().name == "FULL",
        "cudagraph_mode FULL: graphs of mixed batches would skip latents of prompts; use FULL_AND_PIECEWISE",
    )
    # vLLM may set it by itself, and may remember what it read before: so the variable is what counts.
    yield (
        os.environ.get("VLLM_USE_BREAKABLE_CUDAGRAPH") == "1",
        "VLLM_USE_BREAKABLE_CUDAGRAPH=1: its graphs would skip latents of prompts; set it to 0",
    )
    backend = config.attention_config.backend
    yield backend is not None and not is_known(backend.name), refused_backend(backend.name if backend else "")


def is_known(backend: str) -> bool:
    return backend in ATTENTION_BACKENDS


def refused_backend(name: str) -> str:
    return f"the attention backend {name}: latents need one of {', '.join(ATTENTION_BACKENDS)}"
