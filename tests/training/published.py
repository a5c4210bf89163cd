"""Fake checkpoints in the layout of the published one: float32 language model, bf16 tower, ``.bin`` shards, an index.

Names and shapes are those of ``tests/golden/gen_weights.py``; the tokenizer is a byte-level BPE of 40 letters, so that
a whole checkpoint takes milliseconds.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LATENT = ("<|latent_pad|>", "<|latent_start|>", "<|latent_end|>")
IDS = {name: len(LETTERS) + at for at, name in enumerate((*SPECIAL, *LATENT))}
# As in the published checkpoint, the last row is that of END.
NUM_ROWS = 50


def write_published(
    folder: Path, *, layout: str = "bin-7", seed: int = 0, config: dict[str, Any] | None = None
) -> dict[str, Tensor]:
    """A checkpoint; its weights are returned. ``layout``: ``bin`` or ``safetensors``, with ``-N`` in N shards.

    ``config`` changes ``config.json``; a value of None takes the key out.
    """
    folder.mkdir(parents=True)
    content = config_of(config or {})
    write_json(folder / "config.json", content)
    write_small_files(folder)
    weights = make_weights(content, seed)
    write_weights(folder, weights, layout)
    return weights


def write_weights(folder: Path, weights: dict[str, Tensor], layout: str) -> None:
    kind, _, shards = layout.partition("-")
    num_shards = int(shards or 1)
    suffix, stem = (".bin", "pytorch_model") if kind == "bin" else (".safetensors", "model")
    names = list(weights)
    files: dict[str, str] = {}
    for at in range(num_shards):
        file = f"{stem}-{at + 1:05}-of-{num_shards:05}{suffix}" if shards else f"{stem}{suffix}"
        mine = names[at * len(names) // num_shards : (at + 1) * len(names) // num_shards]
        save(folder / file, {name: weights[name] for name in mine})
        files |= dict.fromkeys(mine, file)
    if shards:
        total = sum(tensor.nbytes for tensor in weights.values())
        write_json(folder / f"{stem}{suffix}.index.json", {"metadata": {"total_size": total}, "weight_map": files})


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path, metadata={"format": "pt"})


def make_weights(config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """The language model in float32, the tower in bf16."""
    spec = importlib.util.spec_from_file_location("gen_weights", GOLDEN / "gen_weights.py")
    assert spec is not None
    assert spec.loader is not None
    gen_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gen_weights)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, (shape, _) in gen_weights.shapes(config).items():
        tensor = torch.randn(shape, generator=generator) * 0.02
        weights[name] = tensor.bfloat16() if name.startswith("visual.") else tensor
    return weights


def config_of(changes: dict[str, Any]) -> dict[str, Any]:
    content = json.loads((GOLDEN / "ckpt-b-config" / "config.json").read_text())
    content |= {
        "bos_token_id": IDS["<|endoftext|>"],
        "eos_token_id": IDS["<|im_end|>"],
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "vision_token_id": None,
        "latent_token_id": IDS["<|latent_pad|>"],
        "latent_start_id": IDS["<|latent_start|>"],
        "latent_end_id": IDS["<|latent_end|>"],
        "vocab_size": NUM_ROWS,
    }
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


def write_small_files(folder: Path, *, with_latents: bool = True) -> None:
    """Tokenizer, image processor, chat template, generation config; of a base model without latent tokens."""
    tokens = (*SPECIAL, *LATENT) if with_latents else SPECIAL
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": IDS[token], "content": token, **flags} for token in tokens],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {letter: at for at, letter in enumerate(LETTERS)}, "merges": []},
    }
    write_json(folder / "tokenizer.json", tokenizer)
    decoder = {str(IDS[token]): {"content": token, **flags} for token in tokens}
    tokenizer_config = {"added_tokens_decoder": decoder, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    for name in ("preprocessor_config.json", "chat_template.json"):
        (folder / name).write_bytes((GOLDEN / "tok" / name).read_bytes())
    write_json(folder / "generation_config.json", {"do_sample": False, "eos_token_id": IDS["<|im_end|>"]})


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
