"""The conversion itself, from the first look at the source to the rename of the finished folder."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contracts.errors import InvalidRequest
from contracts.manifest import MANIFEST_FILE
from training.convert.partial_folder import check_absent, partial_folder
from training.convert.plan import Options, Plan, make_plan
from training.convert.source import Source, check_crc
from training.convert.stock_model import check_folder
from training.convert.verify import verify_shard
from training.convert.writer import write_shard
from training.weight_files import weight_file, write_index, write_json

READ_BYTES = 8 << 20
# What a folder needs beside its weights: tokenizer, configs, index.
SMALL_FILES_BYTES = 64 << 20


@dataclass(frozen=True)
class Progress:
    """Where a conversion is. Bytes are counted once for reading the source, for writing and for verifying."""

    what: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Converted:
    """What was written."""

    plan: Plan
    files: Mapping[str, str]


def convert(
    source: Path,
    target: Path,
    options: Options,
    *,
    created_by: Mapping[str, Any],
    check: Callable[[Path], object] = lambda folder: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Converted:
    """Write ``target`` from the checkpoint in ``source``; it exists when all of it was verified, and not before.

    ``check`` is called with the complete folder before it gets its name, and raises if it is not content.
    ``created_by`` goes into the manifest, with the SHA-256 of every source file.

    Raises:
        BadCheckpoint: the source is incomplete, damaged or no ILVR checkpoint.
        InvalidRequest: ``target`` exists or cannot be written, or the options do not fit the source.
    """
    try:
        check_absent(target)
        plan = make_plan(source, options)
        with partial_folder(target) as folder:
            _check_room(plan, folder)
            meter = _Meter(plan, on_progress)
            origin = {"folder": source.resolve().name, "sha256": _checked_hashes(plan.source, meter)}
            hashes = _write_weights(plan, folder, meter)
            for name, path in plan.copied.items():
                shutil.copyfile(path, folder / name)
            for name, text in plan.written.items():
                (folder / name).write_text(text, encoding="utf-8")
            # From here on the folder could be taken for a checkpoint; its name still says that it is none.
            write_json(folder / "config.json", plan.config)
            check_folder(folder, plan.config)
            made = {**created_by, "torch": torch.__version__, "source": origin}
            write_json(folder / MANIFEST_FILE, {**plan.manifest, "sha256": hashes, "created_by": made})
            check(folder)
    except OSError as error:
        raise InvalidRequest(f"{error.filename or target}: {error.strerror or error}; nothing was converted") from error
    return Converted(plan, hashes)


class _Meter:
    def __init__(self, plan: Plan, on_progress: Callable[[Progress], None]) -> None:
        self._total = plan.source.num_bytes + 2 * plan.num_weight_bytes
        self._done = 0
        self._on_progress = on_progress
        self.what = ""

    def add(self, num_bytes: int) -> None:
        self._done += num_bytes
        self._on_progress(Progress(self.what, self._done, self._total))


def _check_room(plan: Plan, folder: Path) -> None:
    needed, free = plan.num_weight_bytes + SMALL_FILES_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise InvalidRequest(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the checkpoint needs {needed / 1e9:.1f} GB", param="dst"
        )


def _checked_hashes(source: Source, meter: _Meter) -> dict[str, str]:
    """SHA-256 by file. Damage that the files' own checksums show is told before any of it is converted."""
    hashes = {}
    for name in source.files:
        meter.what = f"checking {name}"
        path, digest = source.folder / name, hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(READ_BYTES):
                digest.update(data)
                meter.add(len(data))
        if path.suffix == ".bin":
            check_crc(path)
        hashes[name] = digest.hexdigest()
    return hashes


def _write_weights(plan: Plan, folder: Path, meter: _Meter) -> dict[str, str]:
    """Each file is verified before the next is begun. SHA-256 by file."""
    hashes: dict[str, str] = {}
    for number, outputs in enumerate(plan.shards, start=1):
        name = weight_file(number, len(plan.shards))
        meter.what = f"writing {name}"
        hashes[name] = write_shard(folder / name, outputs, plan.source, meter.add)
        meter.what = f"verifying {name}"
        verify_shard(folder / name, outputs, plan.source, meter.add)
    write_index(folder, [[output.name for output in shard] for shard in plan.shards], plan.num_weight_bytes)
    return hashes
