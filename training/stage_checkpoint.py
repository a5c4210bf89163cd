"""A trained stage as a checkpoint folder that ``ilvr serve --model`` loads, in the published layout of names.

Published names are older than the transformers that trains here: ``visual.*``, ``model.*`` and ``lm_head.weight``,
which current transformers and vLLM still read. ``config.json`` is the base model's own, with what changed.
"""

import hashlib
import shutil
from collections.abc import Mapping
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
from training.published_layout import published_name
from training.recipes import StageRecipe
from training.weight_files import MAX_SHARD_BYTES, shards, weight_file, write_index, write_json

HEAD = "lm_head.weight"


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
    write_json(folder / "config.json", _with_dtype(base.config, recipe.saved_dtype))
    latents = {field: base.config[field] for field in LATENT_FIELDS}
    manifest = {"format": FORMAT, **latents, "latent_exit": recipe.latent_exit, "sha256": hashes}
    write_json(folder / MANIFEST_FILE, {**manifest, "created_by": dict(created_by)})


def _write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """One file, or several with their index; SHA-256 by file."""
    names = shards(tensors, lambda name: tensors[name].nbytes, MAX_SHARD_BYTES)
    hashes: dict[str, str] = {}
    for number, shard in enumerate(names, start=1):
        file = folder / weight_file(number, len(names))
        save_file({name: tensors[name].contiguous() for name in shard}, file, metadata={"format": "pt"})
        with file.open("rb") as opened:
            hashes[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    write_index(folder, names, sum(tensor.nbytes for tensor in tensors.values()))
    return hashes


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
