"""A checkpoint folder, checked before anything heavy starts.

The layout is that of a published Qwen2.5-VL folder with three added tokens. Whatever can be missing or wrong is told
here in one line, because the engine would tell it in a stack trace half a minute later.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import BadCheckpoint
from contracts.manifest import BlockRule, LatentSpec, read_json, read_latent_spec

NEEDED_FILES = ("tokenizer.json", "preprocessor_config.json")
EMBEDDING_SUFFIX = "embed_tokens.weight"
NEEDED_SIZES = ("hidden_size", "num_attention_heads", "max_position_embeddings")
CPU_HEAD_DIM_MULTIPLE = 32  # vLLM's CPU attention kernel refuses other head sizes


@dataclass(frozen=True)
class Checkpoint:
    """What the runner needs to know of a checkpoint folder."""

    folder: Path
    spec: LatentSpec
    config: dict[str, Any]

    @property
    def text_config(self) -> dict[str, Any]:
        """Of the language model: a section of its own in folders saved since transformers 5, the top level before."""
        section: dict[str, Any] = self.config.get("text_config", self.config)
        return section

    @property
    def image_token_id(self) -> int:
        return int(self.config["image_token_id"])

    @property
    def context_tokens(self) -> int:
        return int(self.text_config["max_position_embeddings"])


def read_checkpoint(folder: Path, *, rule: BlockRule | None = None, is_cpu: bool) -> Checkpoint:
    """Check a folder and read its configuration; weights are not loaded.

    Raises:
        BadCheckpoint: with one sentence for whatever is missing or wrong.
    """
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} is not a folder; --model takes a checkpoint folder on this machine")
    config = read_json(folder / "config.json")
    if config.get("model_type") != "qwen2_5_vl":
        raise BadCheckpoint(
            f"{folder}: model_type is {config.get('model_type')!r}; ILVR needs a 'qwen2_5_vl' checkpoint"
        )
    if not isinstance(config.get("text_config", {}), dict):
        raise BadCheckpoint(f"{folder}: text_config in config.json is no JSON object")
    checkpoint = Checkpoint(folder, read_latent_spec(folder, rule=rule), config)
    for name in NEEDED_FILES:
        if not (folder / name).exists():
            raise BadCheckpoint(f"{folder}: {name} is missing; copy it from the base model's folder")
    read_json(folder / "preprocessor_config.json")
    if type(config.get("image_token_id")) is not int:
        raise BadCheckpoint(f"{folder}: config.json has no image_token_id")
    for name in NEEDED_SIZES:
        size = checkpoint.text_config.get(name)
        if type(size) is not int or size < 1:
            raise BadCheckpoint(f"{folder}: config.json has no {name}")
    _check_embedding(checkpoint)
    if is_cpu:
        _check_head_dim(checkpoint)
    return checkpoint


def _check_head_dim(checkpoint: Checkpoint) -> None:
    text = checkpoint.text_config
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    if head_dim % CPU_HEAD_DIM_MULTIPLE:
        raise BadCheckpoint(
            f"{checkpoint.folder}: head_dim is {head_dim}; on a CPU it must be a multiple of {CPU_HEAD_DIM_MULTIPLE}. "
            "Serve it on a GPU, or with --engine transformers."
        )


def _check_embedding(checkpoint: Checkpoint) -> None:
    spec, folder = checkpoint.spec, checkpoint.folder
    vocab_size = checkpoint.text_config.get("vocab_size") or 0
    rows = min(_embedding_rows(folder) or vocab_size, vocab_size)
    largest = max(spec.pad_id, spec.start_id, spec.end_id)
    if rows <= largest:
        raise BadCheckpoint(
            f"{folder}: the embedding has {rows} rows (the smaller of vocab_size and the weights), the latent ids "
            f"go up to {largest}; the checkpoint was saved before it was resized for the three latent tokens"
        )


def _embedding_rows(folder: Path) -> int | None:
    """Rows of the token embedding by the headers of the safetensors files; None if they are other files.

    Raises ``BadCheckpoint`` if there are no weights at all, or a file is missing or cut short.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files and not list(folder.glob("*.bin")):
        raise BadCheckpoint(f"{folder}: no weights (*.safetensors) in it")
    _check_shards(folder)
    tensors = {name: tensor for file in files for name, tensor in _safetensors_header(file).items()}
    return next((int(tensors[name]["shape"][0]) for name in tensors if name.endswith(EMBEDDING_SUFFIX)), None)


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    named = set(read_json(index).get("weight_map", {}).values()) if index.exists() else set()
    for name in sorted(named):
        if not (folder / name).exists():
            raise BadCheckpoint(f"{folder}: {name} is missing, which {index.name} names")


def _safetensors_header(file: Path) -> dict[str, Any]:
    """Tensors by name. The format: 8 bytes little-endian length, that much JSON, then the data (safetensors README)."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            file_size = file.stat().st_size
            if length > file_size:
                raise ValueError("header is longer than the file")
            header: dict[str, Any] = json.loads(opened.read(length))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        data_end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        if 8 + length + data_end > file_size:
            raise ValueError(f"it ends at byte {file_size} of {8 + length + data_end}")
    except (struct.error, ValueError, AttributeError, TypeError, KeyError) as error:
        raise BadCheckpoint(f"{file} is not a complete safetensors file: {error}") from error
    return tensors
