"""Writing a trained tiny model as a checkpoint folder in the published Qwen2.5-VL layout, with its manifest.

The published layout is older than the transformers that trains here: config keys at the top level, ``rope_scaling``
beside ``rope_theta``, tensors named ``visual.*`` and ``model.*``. Current transformers and vLLM both read it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer

from contracts.manifest import FORMAT, MANIFEST_FILE
from training.configs import GridRecipe
from training.grids.state import GridRun
from training.grids.tiles import MAX_PIXELS, MIN_PIXELS, image_processor
from training.published_layout import published_name
from training.tiny_model import INITIALIZER_RANGE, MERGE_SIZE, PATCH_PX, TEMPORAL_PATCH_SIZE
from training.tiny_tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, SpecialIds
from training.weight_files import SINGLE_FILE, write_json

# The layout's own version: what transformers wrote it.
LAYOUT_VERSION = "4.50.0"


def export(run: GridRun, folder: Path, created_by: Mapping[str, Any]) -> None:
    """Write the checkpoint in float32, exactly the weights that were run. Overwrites files of the same names."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = run.batches.ids
    weights = save(published_tensors(run.model), metadata={"format": "pt"})
    (folder / SINGLE_FILE).write_bytes(weights)
    run.tokenizer.save(str(folder / "tokenizer.json"))
    manifest: dict[str, Any] = {"format": FORMAT, **_latent_fields(run.recipe, ids)}
    manifest |= {
        "latent_exit": run.recipe.latent_exit,
        "sha256": {SINGLE_FILE: hashlib.sha256(weights).hexdigest()},
        "created_by": dict(created_by),
    }
    files = {
        "config.json": flat_config(run.recipe, ids),
        "generation_config.json": {
            "do_sample": False,
            "eos_token_id": [ids.im_end, ids.end_of_text],
            "pad_token_id": ids.end_of_text,
        },
        "tokenizer_config.json": tokenizer_config(run.recipe, run.tokenizer),
        "special_tokens_map.json": {
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "preprocessor_config.json": preprocessor_config(),
        MANIFEST_FILE: manifest,
    }
    for name, content in files.items():
        write_json(folder / name, content)


def published_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights under their published names; the head is tied and left out."""
    published = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        published[published_name(name)] = tensor.detach().float().contiguous()
    return published


def flat_config(recipe: GridRecipe, ids: SpecialIds) -> dict[str, Any]:
    """``config.json`` as published checkpoints have it, with the latent ids and K."""
    shape = recipe.model
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids.end_of_text,
        "eos_token_id": ids.im_end,
        "pad_token_id": ids.end_of_text,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "image_token_id": ids.image_pad,
        "initializer_range": INITIALIZER_RANGE,
        "intermediate_size": shape.intermediate_size,
        **_latent_fields(recipe, ids),
        "max_position_embeddings": shape.max_position_embeddings,
        "max_window_layers": shape.num_layers,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_section": list(shape.mrope_section), "rope_type": "default", "type": "default"},
        "rope_theta": shape.rope_theta,
        "sliding_window": shape.max_position_embeddings,
        "stage": "stage2",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": LAYOUT_VERSION,
        "use_cache": True,
        "use_sliding_window": False,
        "video_token_id": ids.video_pad,
        "vision_config": {
            "depth": shape.tower_depth,
            "fullatt_block_indexes": list(range(shape.tower_depth)),
            "hidden_act": "silu",
            "hidden_size": shape.tower_hidden_size,
            "in_channels": 3,
            "in_chans": 3,
            "intermediate_size": shape.tower_intermediate_size,
            "model_type": "qwen2_5_vl",
            "num_heads": shape.tower_num_heads,
            "out_hidden_size": shape.hidden_size,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE_SIZE,
            "spatial_patch_size": PATCH_PX,
            "temporal_patch_size": TEMPORAL_PATCH_SIZE,
            "tokens_per_second": 2,
            "window_size": shape.window_px,
        },
        "vision_end_token_id": ids.vision_end,
        "vision_start_token_id": ids.vision_start,
        "vocab_size": shape.vocab_size,
    }


def tokenizer_config(recipe: GridRecipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """``tokenizer_config.json``: the generic fast class, since the whole tokenizer stands in ``tokenizer.json``."""
    return {
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in SPECIAL_TOKENS
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": recipe.model.max_position_embeddings,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def preprocessor_config() -> dict[str, Any]:
    """``preprocessor_config.json`` of the image processor that training used."""
    processor = image_processor()
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(processor.image_mean),
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": list(processor.image_std),
        "max_pixels": MAX_PIXELS,
        "merge_size": MERGE_SIZE,
        "min_pixels": MIN_PIXELS,
        "patch_size": PATCH_PX,
        "processor_class": "Qwen2_5_VLProcessor",
        "resample": int(processor.resample),
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": MAX_PIXELS, "shortest_edge": MIN_PIXELS},
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
    }


def _latent_fields(recipe: GridRecipe, ids: SpecialIds) -> dict[str, int]:
    return {
        "latent_token_id": ids.latent_pad,
        "latent_start_id": ids.latent_start,
        "latent_end_id": ids.latent_end,
        "latent_size": recipe.latent_size,
    }
