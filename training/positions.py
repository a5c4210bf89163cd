"""M-RoPE positions of a conversation with images (Qwen2-VL, arXiv 2409.12191, section 2.1)."""

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

# Frames, rows and columns of an image in visual tokens.
Grid = tuple[int, int, int]


def mrope_positions(token_ids: Sequence[int], image_token_id: int, grids: Sequence[Grid]) -> Tensor:
    """Positions [3, T] int64 of T tokens: time, row, column.

    Text advances all axes by one; an image starts at the next position, counts frames, rows and columns, and the text
    after it goes on from the larger of rows and columns. There is text between two images.

    Raises:
        ValueError: the runs of image tokens are not those of the grids.
    """
    left = list(grids)
    parts: list[Tensor] = []
    position = 0
    for is_image, run in groupby(token_ids, key=lambda token_id: token_id == image_token_id):
        length = len(list(run))
        if is_image:
            grid = left.pop(0) if left else (0, 0, 0)
            if length != math.prod(grid):
                raise ValueError(f"{length} image tokens stand where a grid of {grid} is expected")
            parts.append(position + torch.cartesian_prod(*map(torch.arange, grid)).T)
            position += max(grid[1:])
        else:
            parts.append((torch.arange(length) + position).expand(3, -1))
            position += length
    if left:
        raise ValueError(f"{len(left)} images have no tokens")
    return torch.cat(parts, dim=1)
