"""A checkpoint of random weights in the shape of Qwen2.5-0.5B with its head untied: about 0.67 billion parameters.

Random weights do not choose START by themselves. The rows of the head are drawn so that they do: START's row is
``START_SCALE`` times as long as others, so that greedy decoding chooses it every few tokens of text, as it chooses any
token: by what stands before it. The rows of all other special tokens are 0 and their scores therefore 0, which the best
of 150,000 others is always above: no answer ends before ``max_tokens`` and no image token is ever chosen.

The tower has the proportion of Qwen2.5-VL-7B: 0.40 of the decoder's multiplications for a visual token.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "decode"
TOKENIZER = ROOT / "tests" / "golden" / "tok"
FIRST_SPECIAL_ID, START_ID, VOCABULARY = 151643, 151666, 151668
UNUSED_ID = 151664  # <|file_sep|>: its row in the head is 0, so that it is never chosen
SEED = 0
STD = 0.02
START_SCALE = 6.0

TEXT: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 8192,
    "max_window_layers": 24,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "rope_scaling": {"mrope_section": [8, 12, 12], "rope_type": "default", "type": "default"},
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "initializer_range": STD,
    "sliding_window": 8192,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
    "use_cache": True,
}
TOWER: dict[str, Any] = {
    "model_type": "qwen2_5_vl",
    "depth": 20,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_heads": 6,
    "out_hidden_size": 896,
    "fullatt_block_indexes": [4, 9, 14, 19],
    "window_size": 112,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "in_channels": 3,
    "in_chans": 3,
    "hidden_act": "silu",
}
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "torch_dtype": "bfloat16",
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "latent_token_id": 151665,
    "latent_start_id": START_ID,
    "latent_end_id": 151667,
    "latent_size": 8,
    "vision_config": TOWER,
    **TEXT,
}


def random_checkpoint(folder: Path = BUILD / "random-0.6b") -> Path:
    """The folder, with 1.3 GB of weights in it; made the first time, in some 20 s."""
    done = folder / "config.json"  # written last
    if done.exists() and json.loads(done.read_text()) == CONFIG:
        return folder
    print(f"making random weights in {folder.relative_to(ROOT)} …", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    generator = torch.Generator().manual_seed(SEED)
    weights = {name: _draw(name, shape, generator) for name, shape in shapes()}
    _shape_the_head(weights["lm_head.weight"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "generation_config.json").write_text('{"do_sample": false, "eos_token_id": [151645, 151643]}\n')
    manifest = {"format": "ilvr-checkpoint/1", "latent_exit": "fixed"}
    (folder / "ilvr.json").write_text(json.dumps(manifest) + "\n")
    done.write_text(json.dumps(CONFIG, indent=2) + "\n")
    return folder


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all weights, as published folders have them."""
    width, inner = TEXT["hidden_size"], TEXT["intermediate_size"]
    head_dim = width // TEXT["num_attention_heads"]
    of_keys = TEXT["num_key_value_heads"] * head_dim
    tower, of_tower, merged = TOWER["hidden_size"], TOWER["intermediate_size"], 4 * TOWER["hidden_size"]
    yield "visual.patch_embed.proj.weight", (tower, 3, 2, 14, 14)
    for layer in range(TOWER["depth"]):
        at = f"visual.blocks.{layer}"
        yield from ((f"{at}.{name}.weight", (tower,)) for name in ("norm1", "norm2"))
        yield from _linear(f"{at}.attn.qkv", 3 * tower, tower, bias=True)
        yield from _linear(f"{at}.attn.proj", tower, tower, bias=True)
        yield from _linear(f"{at}.mlp.gate_proj", of_tower, tower, bias=True)
        yield from _linear(f"{at}.mlp.up_proj", of_tower, tower, bias=True)
        yield from _linear(f"{at}.mlp.down_proj", tower, of_tower, bias=True)
    yield "visual.merger.ln_q.weight", (tower,)
    yield from _linear("visual.merger.mlp.0", merged, merged, bias=True)
    yield from _linear("visual.merger.mlp.2", width, merged, bias=True)
    yield "model.embed_tokens.weight", (VOCABULARY, width)
    for layer in range(TEXT["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield from ((f"{at}.{name}.weight", (width,)) for name in ("input_layernorm", "post_attention_layernorm"))
        yield from _linear(f"{at}.self_attn.q_proj", width, width, bias=True)
        yield from _linear(f"{at}.self_attn.k_proj", of_keys, width, bias=True)
        yield from _linear(f"{at}.self_attn.v_proj", of_keys, width, bias=True)
        yield from _linear(f"{at}.self_attn.o_proj", width, width)
        yield from _linear(f"{at}.mlp.gate_proj", inner, width)
        yield from _linear(f"{at}.mlp.up_proj", inner, width)
        yield from _linear(f"{at}.mlp.down_proj", width, inner)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (VOCABULARY, width)


def _linear(name: str, out: int, inputs: int, *, bias: bool = False) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, inputs)
    if bias:
        yield f"{name}.bias", (out,)


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith(("norm.weight", "layernorm.weight", "norm1.weight", "norm2.weight", "ln_q.weight")):
        return torch.ones(shape, dtype=torch.bfloat16)
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    return torch.randn(shape, generator=generator).mul_(STD).bfloat16()


def _shape_the_head(head_VD: Tensor) -> None:
    start_D = head_VD[START_ID] * START_SCALE
    head_VD[FIRST_SPECIAL_ID:] = 0
    head_VD[START_ID] = start_D


def with_blocks_of(size: int, source: Path, *, start_id: int, end_id: int) -> Path:
    """The same weights (linked to) with ``fixed`` blocks of another size, whose START is an id that is never chosen: a
    prompt that ends with START is followed by ``size`` pads, and no other ever is."""
    folder = BUILD / f"{source.name}-blocks-of-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.name not in ("config.json", "ilvr.json"):
            (folder / file.name).symlink_to(file.resolve())
    told = {"latent_start_id": start_id, "latent_end_id": end_id, "latent_size": size}
    config = json.loads((source / "config.json").read_text()) | told
    (folder / "config.json").write_text(json.dumps(config))
    manifest = {"format": "ilvr-checkpoint/1", "latent_exit": "fixed"}
    (folder / "ilvr.json").write_text(json.dumps(manifest))
    return folder
