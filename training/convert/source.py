"""The weights of a checkpoint folder: ``.bin`` or safetensors, one file or shards with an index.

Files are mapped, never read as a whole: opening one costs its names and shapes, and a tensor costs memory only while
it is looked at.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from contracts.errors import BadCheckpoint
from contracts.manifest import read_json
from training.weight_files import INDEX_FILE, SINGLE_FILE

# In the order in which transformers looks for them.
SINGLE_OR_INDEX = (
    SINGLE_FILE,
    INDEX_FILE,
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Pages of a mapping stay in memory until it is closed; after so many bytes of tensors it is opened anew.
MAPPED_LIMIT_BYTES = 64 << 20
DAMAGED = "download it again"


@dataclass(frozen=True)
class SourceTensor:
    """Where a tensor is and what it looks like."""

    file: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class MappedFile:
    """The tensors of one weight file. A tensor is a view of the file: let go of it before asking for the next.

    Raises:
        BadCheckpoint: the file is cut short, damaged, or holds anything but tensors by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: Mapping[str, Tensor] = _map(path)
        self._num_bytes = 0

    def tensor(self, name: str) -> Tensor:
        if self._num_bytes > MAPPED_LIMIT_BYTES:
            self.tensors, self._num_bytes = {}, 0
            self.tensors = _map(self.path)
        tensor = self.tensors[name]
        self._num_bytes += tensor.nbytes
        return tensor


class Source:
    """All tensors of a checkpoint, each in exactly one file; one file is open at a time."""

    def __init__(self, folder: Path) -> None:
        """Look into every file. Raises ``BadCheckpoint``: something is missing, doubled or damaged."""
        self.folder = folder
        self.files, index = _weight_files(folder)
        self.tensors: dict[str, SourceTensor] = {}
        for file in self.files:
            for name, tensor in MappedFile(folder / file).tensors.items():
                if name in self.tensors:
                    raise BadCheckpoint(f"{folder}: {name} is in both {self.tensors[name].file} and {file}")
                self.tensors[name] = SourceTensor(file, tuple(tensor.shape), tensor.dtype)
        for name, file in index.items():
            found = self.tensors.get(name)
            if found is None or found.file != file:
                raise BadCheckpoint(f"{folder / file} does not hold {name}, which the index says it does; {DAMAGED}")
        if not self.tensors:
            raise BadCheckpoint(f"{folder}: there is no tensor in {', '.join(self.files)}")
        self._open: MappedFile | None = None

    @property
    def num_bytes(self) -> int:
        return sum((self.folder / file).stat().st_size for file in self.files)

    def tensor(self, name: str) -> Tensor:
        """A view of the file, see ``MappedFile``."""
        path = self.folder / self.tensors[name].file
        if self._open is None or self._open.path != path:
            self._open = None
            self._open = MappedFile(path)
        return self._open.tensor(name)


def check_crc(path: Path) -> None:
    """Compare a ``.bin`` file with the checksums in it, which mapping does not. Reads all of it.

    Raises:
        BadCheckpoint: a byte differs from what was saved.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            wrong = opened.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise BadCheckpoint(f"{path} is damaged ({error}); {DAMAGED}") from error
    if wrong is not None:
        raise BadCheckpoint(f"{path} is damaged: the checksum of {wrong} in it is wrong; {DAMAGED}")


def _weight_files(folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Files in order, and file by tensor if there is an index."""
    found = next((name for name in SINGLE_OR_INDEX if (folder / name).exists()), None)
    if found is None:
        shards = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".safetensors"))
        there = f"there is {shards[0]}, but no index beside it" if shards else "there is no weight file at all"
        raise BadCheckpoint(f"{folder}: {there}; expected one of {', '.join(SINGLE_OR_INDEX)}")
    if not found.endswith(".json"):
        return (found,), {}
    index = read_json(folder / found).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise BadCheckpoint(f"{folder / found} has no weight_map; {DAMAGED}")
    for file in index.values():
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise BadCheckpoint(f"{folder / found} names {file!r}, which is no name of a file in the same folder")
        if not (folder / file).is_file():
            raise BadCheckpoint(f"{folder}: {file} is missing, which {found} names; download it")
    return tuple(sorted(set(index.values()))), index


def _map(path: Path) -> Mapping[str, Tensor]:
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _map_pickled(path)
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path} is not a complete safetensors file ({error}); {DAMAGED}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path} holds a {type(content).__name__}; expected tensors by name")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise BadCheckpoint(f"{path} holds {name!r}, which is no tensor; expected tensors by name")
    return content


def _map_pickled(path: Path) -> object:
    if not zipfile.is_zipfile(path):
        raise BadCheckpoint(
            f"{path} is not a complete PyTorch file: it was cut short, is a Git LFS pointer, or was saved by a "
            f"PyTorch before 1.6; {DAMAGED}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        why = f"asks for {code[1]} when it is loaded" if code else "is not plain tensors"
        raise BadCheckpoint(f"{path} {why}; such a file can run any code and is not loaded") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise BadCheckpoint(f"{path} cannot be read ({str(error).splitlines()[0]}); {DAMAGED}") from error
