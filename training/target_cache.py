"""Targets of a frozen teacher on disk: computed once, whatever the number of epochs and runs.

One safetensors file a sample, named by a hash of all that decides its targets: the row, the bytes of its pictures,
tokenizer, chat template and image processor, the teacher's weights and the settings. So nothing stale is ever found
under a name; and a file whose content is not what its name says is refused.

Shape letters: S latents of a sample, H hidden size.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from contracts.errors import BadSettings, InvalidRequest
from training.encoding import Encoder
from training.samples import LatentStep, Sample
from training.teacher import Targets

FORMAT = "ilvr-targets/1"
READ_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class SampleTargets:
    """vectors_SH for the positions column_S [S] int64 of one sample, on the CPU."""

    vectors_SH: Tensor
    column_S: Tensor


class TargetCache:
    """A folder of targets for one teacher, encoder and settings, of which ``identity`` is a hash."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity

    def key(self, sample: Sample) -> str:
        """Name of a sample's targets. Reads its pictures.

        Raises:
            InvalidRequest: a picture cannot be read.
        """
        steps = [
            ["latent", step.target_cells] if isinstance(step, LatentStep) else ["text", step.content]
            for step in sample.steps
        ]
        digest = hashlib.sha256(json.dumps([FORMAT, self._identity, sample.text_input, steps]).encode())
        helpers = [step.helper_image for step in sample.steps if isinstance(step, LatentStep)]
        for path in (*sample.images, *helpers):
            try:
                digest.update(file_sha256(path).encode())
            except OSError as error:
                raise InvalidRequest(f"{sample.where}: {path}: {error.strerror or error}") from None
        return digest.hexdigest()

    def has(self, key: str) -> bool:
        return self._file(key).exists()

    def write(self, key: str, found: SampleTargets) -> None:
        """Under its name only when complete.

        Raises:
            BadSettings: the folder cannot be written.
        """
        file = self._file(key)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        tensors = {"vectors": found.vectors_SH.contiguous(), "columns": found.column_S.contiguous()}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata={"format": FORMAT, "key": key, "sha256": _content_sha256(found)})
            partial.replace(file)
        except (OSError, SafetensorError) as error:
            raise BadSettings(f"targets cannot be written to {self._folder}: {error}") from error

    def read(self, key: str) -> SampleTargets:
        """Raises ``BadSettings`` if the file is missing, damaged, or of another sample, teacher or setting."""
        file = self._file(key)
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
                found = SampleTargets(opened.get_tensor("vectors"), opened.get_tensor("columns"))
        except (OSError, SafetensorError) as error:
            raise BadSettings(f"{file} cannot be read ({error}); delete it, and it is made anew") from error
        expected = {"format": FORMAT, "key": key, "sha256": _content_sha256(found)}
        if any(metadata.get(name) != value for name, value in expected.items()):
            raise BadSettings(f"{file} holds other targets than its name says; delete it, and it is made anew")
        return found

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"


def cache_identity(teacher_sha256: str, encoder: Encoder, settings: dict[str, Any]) -> str:
    """Hash of what all samples of a cache share."""
    digest = hashlib.sha256(json.dumps([FORMAT, teacher_sha256, settings], sort_keys=True, default=list).encode())
    digest.update(encoder.tokenizer.to_str().encode())
    digest.update(encoder.template.encode())
    digest.update(json.dumps(encoder.processor.to_dict(), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def split(found: Targets) -> list[SampleTargets]:
    """Targets of a batch, sample by sample; ``found.blocks`` says how many samples there are."""
    return [
        SampleTargets(found.vectors_SH[found.row_S == row].cpu(), found.column_S[found.row_S == row].cpu())
        for row in range(len(found.blocks))
    ]


def joined(parts: Sequence[SampleTargets], device: torch.device) -> Targets:
    """Targets of a batch of those samples."""
    counts = torch.tensor([len(part.column_S) for part in parts])
    return Targets(
        vectors_SH=torch.cat([part.vectors_SH for part in parts]).to(device),
        row_S=torch.arange(len(parts)).repeat_interleave(counts).to(device),
        column_S=torch.cat([part.column_S for part in parts]).to(device),
    )


def folder_sha256(folder: Path) -> str:
    """Hash of a checkpoint's weights."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return hashlib.sha256("".join(f"{file.name} {file_sha256(file)}\n" for file in files).encode()).hexdigest()


def file_sha256(file: Path) -> str:
    """Raises ``OSError``."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _content_sha256(found: SampleTargets) -> str:
    digest = hashlib.sha256(f"{found.vectors_SH.dtype} {tuple(found.vectors_SH.shape)}".encode())
    for tensor in (found.vectors_SH, found.column_S):
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
