"""Accelerate, set up for a recipe: where what distributes training asks for something of its own."""

from datetime import timedelta

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import (  # type: ignore[import-untyped]
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
)
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from contracts.errors import BadSettings
from training.lesson import has_moving_teacher
from training.recipes import StageRecipe

# While one process hashes a base model or writes a checkpoint, the others wait; the usual 10 minutes are too few at 7B.
PATIENCE = timedelta(hours=2)


def make_accelerator(recipe: StageRecipe) -> Accelerator:
    """As the environment says (``accelerate launch``), with the recipe's precision and accumulation."""
    accumulation = GradientAccumulationPlugin(num_steps=recipe.accumulation, sync_with_dataloader=False)
    precision = "bf16" if recipe.precision == "bf16" else "no"
    # Without a GPU several processes talk over gloo, which Accelerate chooses only if it is told of the CPU.
    is_cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(
        cpu=is_cpu,
        mixed_precision=precision,
        gradient_accumulation_plugin=accumulation,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise BadSettings("training needs fsdp_version: 2, as in training/accelerate/fsdp2.yaml")
        if recipe.precision == "bf16":
            # Accelerate's own policy rounds what the wrapped module gives, and so every loss, to bf16, and sums
            # gradients of the ranks in bf16.
            accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32
            )
        # Gradients that are not reduced at every pass would be kept whole on every rank: 30 GB at 7B.
        accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True
    if is_sharded(accelerator) and recipe.stage == "stage2" and recipe.attention == "flash_attention_2":
        raise BadSettings("stage 2 under FSDP2 or DeepSpeed needs attention: sdpa, since passes are padded there")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # Else transformers would take the base model apart as it loads it; it is sharded when it is complete.
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["train_micro_batch_size_per_gpu"] = recipe.batch_size
        config["gradient_clipping"] = recipe.max_grad_norm
        if not recipe.freeze_tower:
            raise BadSettings("under DeepSpeed ranks without images would wait for ever for a trained tower; use FSDP2")
        if has_moving_teacher(recipe):
            raise BadSettings("DeepSpeed keeps a teacher in bf16, whose EMA steps of 0.001 round to nothing; use FSDP2")
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each rank holds a part of the parameters, so that all ranks must call the same layers."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
