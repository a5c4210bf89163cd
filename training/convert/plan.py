"""Everything that a conversion will write, decided and checked before it writes any of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from contracts.errors import BadCheckpoint, InvalidRequest
from contracts.manifest import FORMAT, MANIFEST_FILE, BlockRule, read_json
from training.convert.side_files import find_side_files
from training.convert.source import Source
from training.convert.stock_model import check_tensors, is_tied
from training.convert.tokens import find_tokens
from training.weight_files import MAX_SHARD_BYTES, shards

DTypeName = Literal["bfloat16", "float32", "keep"]
WEIGHT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``num_rows``: of the vocabulary, None to keep them. ``base``: where small files are that the source lacks.

    ``latent_exit``: None to take the source's manifest, or ``learned`` if it has none. ``latent_size``: K, only for a
    checkpoint that does not say it.
    """

    dtype: DTypeName = "bfloat16"
    num_rows: int | None = None
    latent_exit: BlockRule | None = None
    latent_size: int | None = None
    base: Path | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES


@dataclass(frozen=True)
class Output:
    """One tensor to write. Its first axis differs from the source's only where the vocabulary is resized."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """``shards``: the tensors of each weight file. ``manifest`` still lacks hashes and origin. ``notes``: what a
    person should know, one sentence each."""

    source: Source
    shards: Sequence[Sequence[Output]]
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    copied: Mapping[str, Path]
    written: Mapping[str, str]
    notes: Sequence[str]

    @property
    def num_weight_bytes(self) -> int:
        return sum(output.num_bytes for shard in self.shards for output in shard)


def make_plan(folder: Path, options: Options) -> Plan:
    """Read names, shapes and small files of ``folder``; no weights are read but those of a tied head.

    Raises:
        BadCheckpoint: the folder is not a whole Qwen2.5-VL checkpoint with latent tokens.
        InvalidRequest: the options do not fit it.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is not a folder; SRC is a checkpoint folder on this machine", param="src")
    config = read_json(folder / "config.json")
    if config.get("model_type") != "qwen2_5_vl":
        raise BadCheckpoint(f"{folder}: model_type is {config.get('model_type')!r}; expected 'qwen2_5_vl'")
    manifest = _read_manifest(folder)
    files = find_side_files(folder, options.base)
    tokens = find_tokens(folder, config, manifest, files, options.latent_size)
    source = Source(folder)
    notes = (
        [f"{', '.join(tokens.rewritten)}: the latent tokens were added, which it lacked"] if tokens.rewritten else []
    )

    num_rows = _vocabulary_rows(source)
    kept_rows = options.num_rows or num_rows
    if kept_rows <= tokens.largest_id:
        how = "--vocab resize cannot cut it" if options.num_rows else "make room for it with --vocab resize:N"
        raise InvalidRequest(
            f"{folder}: token id {tokens.largest_id} is in use and needs {tokens.largest_id + 1} rows, the vocabulary "
            f"would have {kept_rows}; {how}",
            param="vocab",
        )
    stated = (config.get("text_config") or config).get("vocab_size")
    if stated != num_rows:
        notes.append(f"config.json: vocab_size was {stated}, the embedding has {num_rows} rows; corrected")
    check_tensors(
        _changed(config, num_rows, None), {name: found.shape for name, found in source.tensors.items()}, folder
    )
    outputs = _outputs(source, kept_rows, options.dtype)
    if is_tied(config) and HEAD in source.tensors:
        outputs = _without_tied_head(source, outputs)
        notes.append(f"{HEAD} is left out: it is the embedding, to which config.json ties it")
    return Plan(
        source=source,
        shards=_shards(outputs, options.max_shard_bytes),
        config=_changed(config, kept_rows, None if options.dtype == "keep" else options.dtype),
        manifest={
            "format": FORMAT,
            **tokens.latents,
            "latent_exit": options.latent_exit or manifest.get("latent_exit", "learned"),
        },
        copied={name: path for name, path in files.items() if name not in tokens.rewritten},
        written=tokens.rewritten,
        notes=notes,
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    if not path.exists():
        return {}
    manifest = read_json(path)
    if manifest.get("format") != FORMAT or manifest.get("latent_exit", "learned") not in get_args(BlockRule):
        raise BadCheckpoint(f"{path} is no manifest of format {FORMAT!r} with latent_exit 'learned' or 'fixed'")
    return manifest


def is_vocabulary(name: str) -> bool:
    """Whether the first axis of a tensor counts token ids."""
    return name == HEAD or name.endswith(EMBEDDING)


def _vocabulary_rows(source: Source) -> int:
    rows = {name: found.shape[0] for name, found in source.tensors.items() if is_vocabulary(name)}
    if not any(name != HEAD for name in rows):
        raise BadCheckpoint(f"{source.folder}: there is no token embedding (…{EMBEDDING}) among the tensors")
    if len(set(rows.values())) > 1:
        raise BadCheckpoint(f"{source.folder}: embedding and head have different numbers of rows: {rows}")
    return next(iter(rows.values()))


def _outputs(source: Source, num_rows: int, dtype: DTypeName) -> list[Output]:
    outputs = []
    for name, found in source.tensors.items():
        if found.dtype not in WEIGHT_DTYPES:
            raise BadCheckpoint(f"{source.folder / found.file}: {name} is {found.dtype}; weights are floating point")
        shape = (num_rows, *found.shape[1:]) if is_vocabulary(name) else found.shape
        outputs.append(Output(name, shape, found.dtype if dtype == "keep" else getattr(torch, dtype)))
    return outputs


def _without_tied_head(source: Source, outputs: list[Output]) -> list[Output]:
    """Raises ``BadCheckpoint`` if the head is not the embedding: served, it would be silently replaced by it."""
    embedding = next(name for name in source.tensors if name.endswith(EMBEDDING))
    # Both are views of mapped files; equal() compares them in place.
    first, head = source.tensor(embedding), source.tensor(HEAD)
    if first.dtype != head.dtype or not torch.equal(first, head):
        raise BadCheckpoint(
            f"{source.folder}: config.json says tie_word_embeddings, but {HEAD} is not {embedding}; set it to false in "
            "config.json if the head was trained by itself"
        )
    return [output for output in outputs if output.name != HEAD]


def _shards(outputs: list[Output], max_bytes: int) -> list[list[Output]]:
    """Filled in the order of the source, so that each of its files is opened once."""
    # Wider types first, so that each tensor lies at a multiple of its width, as readers expect.
    return [
        sorted(shard, key=lambda output: -output.dtype.itemsize)
        for shard in shards(outputs, lambda output: output.num_bytes, max_bytes)
    ]


def _changed(config: Mapping[str, Any], num_rows: int, dtype: DTypeName | None) -> dict[str, Any]:
    """The config with another vocabulary and, unless None, another dtype, wherever it states them."""
    changed = dict(config)
    for section in ("text_config", "vision_config"):
        if isinstance(config.get(section), dict):
            changed[section] = dict(config[section])
    sections = [changed, *(changed[name] for name in ("text_config", "vision_config") if name in changed)]
    for section in sections:
        section.update({name: dtype for name in ("torch_dtype", "dtype") if dtype and name in section})
    if dtype and not {"torch_dtype", "dtype"} & changed.keys():
        changed["torch_dtype"] = dtype
    text = changed.get("text_config", changed)
    text["vocab_size"] = num_rows
    if "vocab_size" in changed:
        changed["vocab_size"] = num_rows
    return changed
