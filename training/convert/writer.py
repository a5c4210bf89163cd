"""A safetensors file written piece by piece, so that memory holds one piece of one tensor, whatever the file's size.

The format: 8 bytes little-endian length, that much JSON, then the data, without holes (safetensors README).
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from contracts.errors import BadCheckpoint
from training.convert.plan import Output
from training.convert.source import Source

PIECE_ELEMENTS = 4 << 20
DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
HEADER_ALIGNMENT = 8


def write_shard(path: Path, outputs: Sequence[Output], source: Source, on_bytes: Callable[[int], None]) -> str:
    """Write the tensors in this order; the SHA-256 of the file.

    Raises:
        BadCheckpoint: a value is not finite, in the source or in the new dtype.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        header = _header(outputs)
        file.write(header)
        digest.update(header)
        for output in outputs:
            for piece in _pieces(source, output):
                if not torch.isfinite(piece).all():
                    raise BadCheckpoint(
                        f"{source.folder / source.tensors[output.name].file}: {output.name} holds values that are not "
                        f"finite as {output.dtype}; the checkpoint is broken"
                    )
                data = piece.view(torch.uint8).numpy().data
                file.write(data)
                digest.update(data)
                on_bytes(data.nbytes)
        file.flush()
        os.fsync(file.fileno())  # now, and not when the small files that make it a checkpoint are there
    return digest.hexdigest()


def _header(outputs: Sequence[Output]) -> bytes:
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for output in outputs:
        end = begin + output.num_bytes
        content[output.name] = {
            "dtype": DTYPE_NAMES[output.dtype],
            "shape": list(output.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    encoded = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % HEADER_ALIGNMENT)
    return struct.pack("<Q", len(encoded)) + encoded


def _pieces(source: Source, output: Output) -> Iterator[Tensor]:
    """Flat pieces in the output's dtype: the source's values, then, where the vocabulary grows, the new rows."""
    tensor = source.tensor(output.name)
    if tensor.shape != output.shape:
        tensor = tensor[: output.shape[0]]
    flat = tensor.reshape(-1)
    for begin in range(0, flat.numel(), PIECE_ELEMENTS):
        yield flat[begin : begin + PIECE_ELEMENTS].to(output.dtype)
    num_new = output.shape[0] - tensor.shape[0] if output.shape else 0
    if num_new:
        row = mean_row(tensor).to(output.dtype)
        step = max(1, PIECE_ELEMENTS // len(row))
        for begin in range(0, num_new, step):
            yield row.expand(min(step, num_new - begin), -1).reshape(-1)


def mean_row(rows: Tensor) -> Tensor:
    """The mean of rows ``[V, D]``, ``[D]`` in float64.

    A new row of a vocabulary is this mean: its logit is then the mean of all logits, which is never the largest, so
    that a token that does not exist is not chosen (Hewitt 2021, "Initializing New Word Embeddings").
    """
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    step = max(1, PIECE_ELEMENTS // rows.shape[1])
    for begin in range(0, rows.shape[0], step):
        total += rows[begin : begin + step].double().sum(0)
    return total / rows.shape[0]
