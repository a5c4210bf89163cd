"""Files of a checkpoint folder: names of the weights', how tensors are dealt out to them, their index; JSON."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD_BYTES = 4 << 30


def weight_file(number: int, num_files: int) -> str:
    """Name of the file with this number, counted from 1, as transformers and vLLM look for it."""
    return SINGLE_FILE if num_files == 1 else f"model-{number:05}-of-{num_files:05}.safetensors"


def shards(tensors: Iterable[T], num_bytes: Callable[[T], int], max_bytes: int) -> list[list[T]]:
    """In their order, each file as full as it may be; what is larger than a file has one of its own."""
    found: list[list[T]] = [[]]
    size = 0
    for tensor in tensors:
        if found[-1] and size + num_bytes(tensor) > max_bytes:
            found.append([])
            size = 0
        found[-1].append(tensor)
        size += num_bytes(tensor)
    return found


def write_index(folder: Path, names: Sequence[Sequence[str]], num_bytes: int) -> None:
    """Which file each tensor is in, unless there is one file. names: of the tensors, by file."""
    if len(names) == 1:
        return
    places = {name: weight_file(number, len(names)) for number, shard in enumerate(names, start=1) for name in shard}
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": num_bytes}, "weight_map": places})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented, in UTF-8, with a newline at its end."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
