"""A Qwen2.5-VL of about a million parameters, by the stock transformers class."""

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from training.configs import ModelShape
from training.tiny_tokenizer import SpecialIds

PATCH_PX = 14
MERGE_SIZE = 2
TEMPORAL_PATCH_SIZE = 2
# About 1/sqrt(256) to 1/sqrt(64), the usual scale for layers this narrow; the published 0.02 is meant for widths of
# thousands.
INITIALIZER_RANGE = 0.06


def model_config(shape: ModelShape, ids: SpecialIds) -> Qwen2_5_VLConfig:
    """The config that transformers wants; ``training.checkpoint`` writes the same values in the published layout."""
    rope = {"rope_type": "default", "mrope_section": list(shape.mrope_section), "rope_theta": shape.rope_theta}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.hidden_size,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_heads,
            "intermediate_size": shape.intermediate_size,
            "max_position_embeddings": shape.max_position_embeddings,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope,
            "initializer_range": INITIALIZER_RANGE,
            "bos_token_id": ids.end_of_text,
            "eos_token_id": ids.im_end,
        },
        vision_config={
            "depth": shape.tower_depth,
            "hidden_size": shape.tower_hidden_size,
            "num_heads": shape.tower_num_heads,
            "intermediate_size": shape.tower_intermediate_size,
            "out_hidden_size": shape.hidden_size,
            "fullatt_block_indexes": list(range(shape.tower_depth)),
            "window_size": shape.window_px,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH_SIZE,
            "initializer_range": INITIALIZER_RANGE,
        },
        image_token_id=ids.image_pad,
        video_token_id=ids.video_pad,
        vision_start_token_id=ids.vision_start,
        vision_end_token_id=ids.vision_end,
        tie_word_embeddings=True,
    )


def build_model(shape: ModelShape, ids: SpecialIds, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh float32 model; the seed decides its weights."""
    torch.manual_seed(seed)
    model: Qwen2_5_VLForConditionalGeneration = Qwen2_5_VLForConditionalGeneration._from_config(  # type: ignore[no-untyped-call]
        model_config(shape, ids), dtype=torch.float32
    )
    return model
