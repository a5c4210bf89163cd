"""What vLLM is told when its engine starts: our model, worker, scheduler and processors, and how much is to fit."""

from typing import Any

from model_runner.checkpoint import Checkpoint
from model_runner.settings import RunnerSettings

DEFAULT_CPU_KV_CACHE_MIB = 512


def engine_arguments(
    settings: RunnerSettings, checkpoint: Checkpoint, *, is_cpu: bool, uses_v2: bool
) -> dict[str, Any]:
    """The arguments of ``AsyncEngineArgs``: a pure function of the settings.

    uses_v2: whether vLLM's Model Runner V2 is to serve, to which requests with ablated latents need no processor.
    """
    from msgspec.structs import asdict

    from model_runner.model.keys import ABLATION_KEY, MAX_REPLAYED_PADS, SPEC_KEY
    from model_runner.model.register import ARCHITECTURE

    context = settings.context_tokens(checkpoint.context_tokens)
    kv_cache_mib = settings.kv_cache_mib or (DEFAULT_CPU_KV_CACHE_MIB if is_cpu else None)
    processors = [f"model_runner.model.latent_off:LatentOff{'V2' if uses_v2 else ''}"]
    if settings.latent_ablation != "none" and not uses_v2:
        processors.append("model_runner.model.feed_rows:FeedRows")
    dtype = settings.dtype if settings.dtype != "auto" else ("float32" if is_cpu else "bfloat16")
    arguments: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "served_model_name": settings.model_name,  # a label of its metrics
        "hf_overrides": {"architectures": [ARCHITECTURE]},
        "additional_config": {
            SPEC_KEY: asdict(checkpoint.spec),
            ABLATION_KEY: settings.latent_ablation,
            MAX_REPLAYED_PADS: settings.max_replayed_pads,
        },
        "scheduler_cls": f"model_runner.model.scheduler.{'' if is_cpu else 'Async'}ILVRScheduler",
        "async_scheduling": not is_cpu,  # vLLM has none on a CPU
        "worker_cls": f"model_runner.model.{'cpu' if is_cpu else 'gpu'}_worker.ILVRWorker",
        "logits_processors": processors,
        "generation_config": "vllm",  # the runner resolves the checkpoint's defaults itself
        "dtype": dtype,
        "max_model_len": context,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "block_size": settings.block_size,
        "kv_cache_memory_bytes": kv_cache_mib * 2**20 if kv_cache_mib else None,
        "num_gpu_blocks_override": settings.num_kv_blocks,
        "enable_prefix_caching": settings.caches_prefixes,
        "limit_mm_per_prompt": {"image": settings.max_images},
        "enforce_eager": is_cpu if settings.enforce_eager is None else settings.enforce_eager,
        "seed": 0,
        "use_tqdm_on_load": False,
        "disable_log_stats": False,  # our own recorder needs them
    }
    if not is_cpu:
        if settings.gpu_memory_utilization is not None:
            arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
        # The first knows no float32. Both say of a step what latents are found by, which vLLM's own choice may not.
        arguments["attention_backend"] = "TRITON_ATTN" if dtype == "float32" else "FLASH_ATTN"
        if dtype == "float32":
            arguments["mm_encoder_attn_backend"] = "TORCH_SDPA"  # the one that is exact at any head size
        if not arguments["enforce_eager"]:
            arguments["compilation_config"] = {"cudagraph_mode": "FULL_AND_PIECEWISE"}
    return arguments
