"""A checkpoint folder that has a shape and no weights: vLLM makes random ones (``load_format="dummy"``).

Only times are measured on it. Random weights choose any token, so what a step is, is said by the prompt: one that ends
with START is followed by a ``fixed`` block of more pads than are ever asked for.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TOKENIZER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tok"
ENDLESS = 4096  # latents in a block
START_ID = 151666

# Qwen2.5-VL-7B-Instruct's config.json, but for the three latent ids.
SEVEN_B: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "mrope_section": [16, 24, 24],
    "tower": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "fullatt": [7, 15, 23, 31]},
}
# To try the program without a GPU; its times mean nothing.
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 151680,
    "mrope_section": [4, 6, 6],
    "tower": {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "fullatt": [1]},
}
SHAPES = {"7b": SEVEN_B, "tiny": TINY}


def write_folder(folder: Path, shape: dict[str, Any]) -> Path:
    """Configuration and tokenizer for a shape, in a new folder."""
    folder.mkdir(parents=True)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config_of(shape), indent=2))
    (folder / "generation_config.json").write_text('{"do_sample": false, "eos_token_id": [151645, 151643]}\n')
    (folder / "ilvr.json").write_text('{"format": "ilvr-checkpoint/1", "latent_exit": "fixed"}\n')
    save_file({"none": torch.zeros(1)}, folder / "model.safetensors")  # a folder without weights is refused
    return folder


def config_of(shape: dict[str, Any]) -> dict[str, Any]:
    text = {name: value for name, value in shape.items() if name not in ("mrope_section", "tower")}
    tower = {name: value for name, value in shape["tower"].items() if name != "fullatt"}
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "max_position_embeddings": 32768,
        "max_window_layers": shape["num_hidden_layers"],
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"mrope_section": shape["mrope_section"], "rope_type": "default", "type": "default"},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "latent_token_id": 151665,
        "latent_start_id": START_ID,
        "latent_end_id": 151667,
        "latent_size": ENDLESS,
        **text,
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "hidden_act": "silu",
            "in_channels": 3,
            "in_chans": 3,
            "out_hidden_size": shape["hidden_size"],
            "fullatt_block_indexes": shape["tower"]["fullatt"],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            **tower,
        },
    }
