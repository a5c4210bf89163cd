"""The published layout of Qwen2.5-VL-7B-Instruct, on which the ``..._7b_...`` recipes train: config, names, shapes.

The files in ``published/`` state what the weights on the Hugging Face hub hold; ``*`` in a name stands for the number
of a layer.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from contracts.errors import BadCheckpoint

FOLDER = Path(__file__).parent / "published"
# Tokens of the published tokenizer, and with ILVR's three; the base has 152,064 rows.
NUM_BASE_TOKENS, NUM_TOKENS = 151_665, 151_668
VOCABULARY = ("lm_head.weight", "model.embed_tokens.weight")
SHOWN = 3

Shapes = dict[str, tuple[int, ...]]


def published_name(name: str) -> str:
    """Of a parameter of the stock class: the published names ``visual.*``, ``model.*`` and ``lm_head.weight`` are older
    than the transformers that trains here."""
    return name.removeprefix("model.").replace("language_model.", "model.", 1)


def published_config() -> dict[str, Any]:
    """``config.json`` of the base model."""
    content: dict[str, Any] = json.loads((FOLDER / "qwen2_5_vl_7b.json").read_text(encoding="utf-8"))
    return content


def published_shapes(num_rows: int | None = None) -> Shapes:
    """Shape by published name; ``num_rows``: of the vocabulary, where it is not the base's."""
    content = json.loads((FOLDER / "qwen2_5_vl_7b_tensors.json").read_text(encoding="utf-8"))
    shapes: Shapes = {}
    for pattern, shape in content["shapes"].items():
        prefix, star, suffix = pattern.partition(".*.")
        names = [f"{prefix}.{at}.{suffix}" for at in range(content["repeated"][prefix])] if star else [pattern]
        for name in names:
            shapes[name] = (num_rows or shape[0], *shape[1:]) if name in VOCABULARY else tuple(shape)
    return shapes


def build_on_meta(attention: str) -> Qwen2_5_VLForConditionalGeneration:
    """The base model without storage, by the stock class."""
    config = Qwen2_5_VLConfig.from_dict(published_config())
    config._attn_implementation = attention
    with torch.device("meta"):
        built: Qwen2_5_VLForConditionalGeneration = Qwen2_5_VLForConditionalGeneration(config)  # type: ignore[no-untyped-call]
    return built


def check_layout(model: Qwen2_5_VLForConditionalGeneration, published: Shapes) -> None:
    """Raises ``BadCheckpoint`` if the model's parameters are not exactly these, under their published names."""
    ours = {published_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}
    wrong_shapes = [
        f"{name} {ours[name]} instead of {published[name]}"
        for name in ours.keys() & published.keys()
        if ours[name] != published[name]
    ]
    for problem, names in (
        ("parameters are missing", published.keys() - ours.keys()),
        ("parameters are not published", ours.keys() - published.keys()),
        ("parameters have another shape than published", wrong_shapes),
    ):
        if names:
            shown = ", ".join(sorted(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            raise BadCheckpoint(f"{len(names)} {problem}: {shown}")
