"""A trained stage as a checkpoint folder that ``ilvr serve --model`` loads, in the published layout of names.

Published names are older than the transformers that trains here: ``visual.*``, ``model.*`` and ``lm_head.weight``,
which current transformers and vLLM still read. ``config.json`` is the base model's own, with what changed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from contracts.manifest import FORMAT, LATENT_FIELDS, MANIFEST_FILE
from training.base_model import BaseModel
from training.convert.side_files import find_side_files
from training.convert.tokens import find_tokens
from training.lora import merged, save_adapter
from training.recipes import StageRecipe

HEAD = "lm_head.weight"
MAX_SHARD_BYTES = 4 << 30  # as ``ilvr convert`` cuts them


def published_name(name: str) -> str:
    """Of a parameter of the stock class, in the published layout."""
    return name.removeprefix("model.").replace("language_model.", "model.", 1)


def write_checkpoint(
    folder: Path,
    base: BaseModel,
    trained: Mapping[str, Tensor],
    tower: Mapping[str, Tensor],
    recipe: StageRecipe,
    created_by: Mapping[str, Any],
) -> None:
    """Weights, tokenizer, image processor, chat template, config and, last, the manifest.

    trained: parameters of the student under the names of the stock class; with adapters, they are merged into the
    weights and also saved by themselves. tower: those of a frozen tower, under its own names.
    """
    dtype = getattr(torch, recipe.saved_dtype)
    plain = merged(trained, recipe) if recipe.lora else trained
    tensors = {published_name(name): tensor for name, tensor in plain.items() if not (base.is_tied and name == HEAD)}
    tensors |= {f"visual.{name}": tensor for name, tensor in tower.items()}
    hashes = _write_weights(folder, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    if recipe.lora:
        save_adapter(trained, recipe, base.folder.resolve().name, folder / "adapter")
    _write_small_files(folder, base)
    _write_json(folder / "config.json", _with_dtype(base.config, recipe.saved_dtype))
    latents = {field: base.config[field] for field in LATENT_FIELDS}
    manifest = {"format": FORMAT, **latents, "latent_exit": recipe.latent_exit, "sha256": hashes}
    _write_json(folder / MANIFEST_FILE, {**manifest, "created_by": dict(created_by)})


def _write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """One file, or shards with their index; SHA-256 by file."""
    shards = list(_shards(tensors))
    hashes: dict[str, str] = {}
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in shard.items()}, folder / name, metadata={"format": "pt"})
        with (folder / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        places |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        size = sum(tensor.nbytes for tensor in tensors.values())
        _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})
    return hashes


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > MAX_SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _write_small_files(folder: Path, base: BaseModel) -> None:
    """Copies of the base's, but of its tokenizer with ILVR's tokens where it lacked them."""
    files = find_side_files(base.folder, None)
    rewritten: Mapping[str, str] = {}
    if base.num_added_tokens:
        rewritten = find_tokens(base.folder, base.config, {}, files, None).rewritten
    for name, path in files.items():
        if name in rewritten:
            (folder / name).write_text(rewritten[name], encoding="utf-8")
        else:
            shutil.copyfile(path, folder / name)


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Under the names that the base uses: ``torch_dtype`` before transformers 5, ``dtype`` since, in each section."""
    changed = {key: _with_dtype(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    return changed | {key: dtype for key in ("dtype", "torch_dtype") if key in config}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
