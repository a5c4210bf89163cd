"""Pictures made of tiles, as a table look-up instead of image processing.

Shape letters: K tiles of the table, P patches of a tile (4), X values of a patch, B pictures, N tiles of a picture,
H hidden size.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_position_ids

from training.grids.tasks import GridTask
from training.tiny_model import MERGE_SIZE

PATCHES_PER_TILE = 4
# The smallest and largest picture that is not scaled: 2x2 to 16x16 cells of 28 pixels.
MIN_PIXELS, MAX_PIXELS = 56 * 56, 448 * 448


@dataclass(frozen=True, slots=True)
class TileImages:
    """Square pictures of equal size by the numbers of their tiles, tiles_BN; table_KPX: pixel values of every tile."""

    table_KPX: Tensor
    tiles_BN: Tensor

    @property
    def num_tokens(self) -> Sequence[int]:
        return [self.tiles_BN.shape[1]] * len(self.tiles_BN)

    def features(self, model: Qwen2_5_VLForConditionalGeneration) -> Tensor:
        """Merged visual features [B * N, H]: the stock tower, for all pictures at once.

        Two departures for speed, neither of which changes a value: each distinct patch is embedded once, and attention
        runs on the batch instead of picture by picture. Right only where one window covers the whole picture.
        """
        visual = model.model.visual
        batch, num_tiles = self.tiles_BN.shape
        grid = MERGE_SIZE * round(num_tiles**0.5)
        embedded = visual.patch_embed(self.table_KPX.flatten(0, 1)).view(*self.table_KPX.shape[:2], -1)
        x = functional.embedding(self.tiles_BN, embedded.flatten(1)).view(batch, num_tiles * PATCHES_PER_TILE, -1)
        positions = get_vision_position_ids(torch.tensor([[1, grid, grid]]), MERGE_SIZE)
        cos, sin = visual.rotary_pos_emb(x, positions)
        for block in visual.blocks:
            attention = block.attn
            q, k, v = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
            q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
            mixed = functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            x = x + attention.proj(mixed.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm2(x))
        features: Tensor = visual.merger(x.flatten(0, 1))
        return features

    def to(self, device: torch.device) -> "TileImages":
        return replace(self, table_KPX=self.table_KPX.to(device), tiles_BN=self.tiles_BN.to(device))


class TileTable:
    """Normalised pixel values of every tile of a task.

    ``pixels_KPX`` holds exactly the rows that the image processor gives for that tile in any picture: scaling does not
    happen, and the rest of its work is element by element.
    """

    def __init__(self, task: GridTask) -> None:
        processor = image_processor()
        keys = task.tile_keys()
        self._index = {key: index for index, key in enumerate(keys)}
        rows = []
        for key in keys:
            picture = Image.new("RGB", (56, 56))  # four copies: one alone would be scaled up to MIN_PIXELS
            for corner in ((0, 0), (0, 28), (28, 0), (28, 28)):
                picture.paste(task.tile(key), corner)
            rows.append(processor(images=[picture], return_tensors="pt")["pixel_values"][:PATCHES_PER_TILE])
        self.pixels_KPX = torch.stack(rows)

    def images(self, pictures: Sequence[Sequence[Hashable]]) -> TileImages:
        """Pictures by the keys of their tiles, all of one size."""
        tiles = [[self._index[key] for key in picture] for picture in pictures]
        return TileImages(self.pixels_KPX, torch.tensor(tiles))


def image_processor() -> Qwen2VLImageProcessorPil:
    """The processor that serving loads from the checkpoint. PIL's, whatever torchvision is installed."""
    return Qwen2VLImageProcessorPil(size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS})
