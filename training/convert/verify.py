"""Reading back what was written, by the library that will load it, and comparing it with the source.

Written apart from ``writer`` on purpose: nothing of it is used here but the definition of a new vocabulary row.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from contracts.errors import BadCheckpoint
from training.convert.plan import Output
from training.convert.source import MappedFile, Source
from training.convert.writer import mean_row

PIECE_ELEMENTS = 4 << 20


def verify_shard(path: Path, outputs: Sequence[Output], source: Source, on_bytes: Callable[[int], None]) -> None:
    """Names, dtypes, shapes and every bit of every value.

    Raises:
        BadCheckpoint: something differs; a disk or memory of this machine is then at fault.
    """
    written = MappedFile(path)
    if set(written.tensors) != {output.name for output in outputs}:
        raise BadCheckpoint(f"{path} holds other tensors than were written to it; convert again")
    for output in outputs:
        tensor = written.tensor(output.name)
        if tensor.dtype != output.dtype or tuple(tensor.shape) != output.shape:
            raise BadCheckpoint(f"{path}: {output.name} came back as {tensor.dtype} {tuple(tensor.shape)}")
        if not _is_same(tensor, source.tensor(output.name)):
            raise BadCheckpoint(f"{path}: {output.name} differs from what was written; check the disk, convert again")
        on_bytes(output.num_bytes)


def _is_same(written: Tensor, original: Tensor) -> bool:
    """Whether ``written`` is ``original`` in its own dtype, cut or with mean rows added along the first axis."""
    if written.ndim == 0:
        return _is_equal(written[None], original[None])
    num_kept = min(len(written), len(original))
    step = max(1, PIECE_ELEMENTS // max(1, written[:1].numel()))
    for begin in range(0, num_kept, step):
        end = min(begin + step, num_kept)
        if not _is_equal(written[begin:end], original[begin:end]):
            return False
    if len(written) > num_kept:
        row = mean_row(original)[None]
        return all(_is_equal(written[at : at + 1], row) for at in range(num_kept, len(written)))
    return True


def _is_equal(written: Tensor, original: Tensor) -> bool:
    """Bit by bit, so that -0.0 is not 0.0."""
    expected = original.to(written.dtype).contiguous()
    return torch.equal(written.contiguous().view(torch.uint8), expected.view(torch.uint8))
