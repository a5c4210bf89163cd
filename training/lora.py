"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on the language model, in place, by peft.

Adapters are injected into the model's own layers, without a wrapper, so that the forward passes of this package find
every module where they expect it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn

from training.recipes import StageRecipe

ADAPTER_FILE = "adapter_model.safetensors"
BASE_SUFFIX = ".base_layer."
PREFIX_OF_PEFT = "base_model.model."


def inject_lora(language_model: nn.Module, recipe: StageRecipe) -> None:
    """Adapters on the recipe's projections; every other parameter of the language model is frozen."""
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=list(recipe.lora_targets),
    )
    torch.manual_seed(recipe.seed)  # the same beginning on every rank: each keeps its own part of it
    inject_adapter_in_model(config, language_model)


def merged(tensors: Mapping[str, Tensor], recipe: StageRecipe) -> dict[str, Tensor]:
    """W + alpha / r B A under the names of a model without adapters; tensors that bear none are as they were."""
    scale = recipe.lora_alpha / recipe.lora_rank
    plain = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        down = tensors.get(name.replace(".base_layer.weight", ".lora_A.default.weight"))
        if BASE_SUFFIX in name and name.endswith("weight") and down is not None:
            up = tensors[name.replace(".base_layer.weight", ".lora_B.default.weight")]
            tensor = (tensor.float() + scale * (up.float() @ down.float())).to(tensor.dtype)
        plain[name.replace(BASE_SUFFIX, ".")] = tensor
    return plain


def save_adapter(tensors: Mapping[str, Tensor], recipe: StageRecipe, base: str, folder: Path) -> None:
    """The adapters by themselves, as ``peft.PeftModel.from_pretrained`` loads them on the base model."""
    folder.mkdir(parents=True, exist_ok=True)
    adapters = {
        PREFIX_OF_PEFT + name.replace(".default.", "."): tensor.contiguous()
        for name, tensor in tensors.items()
        if ".lora_" in name
    }
    save_file(adapters, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": recipe.lora_rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        # The tower has projections of the same names, which bear no adapters.
        "target_modules": rf"model\.language_model\..*\.({'|'.join(recipe.lora_targets)})",
        "bias": "none",
        "task_type": None,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
