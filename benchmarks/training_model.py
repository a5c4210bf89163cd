"""Model and sample of ``benchmarks.training``: random weights, random text and random patches, in known proportions.

The model has about the proportions of Qwen2.5-VL-7B at a small width (``proportions``), and window attention in all
layers of the tower but the last. A sample has one image in its question and one helper image for each block, all of the
same size, and text before, between and after the blocks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import IGNORED_LABEL, Block, Encoded, PixelImages
from training.configs import ModelShape
from training.positions import mrope_positions
from training.teacher import SelectionSettings
from training.tiny_model import MERGE_SIZE, PATCH_PX, TEMPORAL_PATCH_SIZE, model_config
from training.tiny_tokenizer import SpecialIds

IDS = SpecialIds(
    end_of_text=0,
    im_end=1,
    vision_start=2,
    vision_end=3,
    image_pad=4,
    video_pad=5,
    latent_pad=6,
    latent_start=7,
    latent_end=8,
)
HEADER = [9, 10]
FIRST_TEXT_ID = 11
HEAD_DIM = 32
# Of the hidden size. Qwen2.5-VL-7B: 18,944 / 3,584 = 5.3; 152,064 / 3,584 = 42 over 28 layers, 1.7 a layer; 1,280 /
# 3,584 = 0.36; and 3,420 / 1,280 = 2.67 of the tower's.
INTERMEDIATE_RATIO, VOCABULARY_RATIO_A_LAYER, TOWER_RATIO, TOWER_INTERMEDIATE_RATIO = 5.3, 1.7, 0.375, 2.67
QUERY_HEADS_A_KEY_HEAD = 7  # of Qwen2.5-VL-7B
QUESTION_SHARE = 0.2  # of the text; the rest is said in equal parts around the blocks
LATENT_SIZE = 8
SELECTION = SelectionSettings(
    latent_size=LATENT_SIZE,
    no_text_ids=frozenset(
        {IDS.vision_start, IDS.vision_end, IDS.image_pad, IDS.latent_pad, IDS.latent_start, IDS.latent_end}
    ),
    image_token_id=IDS.image_pad,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured on."""

    layers: int = 4
    hidden: int = 256
    image_tokens: int = 256
    text_tokens: int = 320
    blocks: int = 3
    seed: int = 0

    @property
    def image_sides(self) -> tuple[int, int]:
        """Rows and columns of visual tokens, as near to a square as they multiply to ``image_tokens``."""
        rows = next(side for side in range(int(self.image_tokens**0.5), 0, -1) if self.image_tokens % side == 0)
        return rows, self.image_tokens // rows

    @property
    def vocabulary(self) -> int:
        return FIRST_TEXT_ID + round(self.hidden * self.layers * VOCABULARY_RATIO_A_LAYER)


def build(setting: Setting) -> Qwen2_5_VLForConditionalGeneration:
    """A model of random weights; see the head of this module."""
    hidden, tower = setting.hidden, round(setting.hidden * TOWER_RATIO / HEAD_DIM) * HEAD_DIM or HEAD_DIM
    shape = ModelShape(
        vocab_size=setting.vocabulary,
        hidden_size=hidden,
        num_layers=setting.layers,
        num_heads=hidden // HEAD_DIM,
        intermediate_size=round(hidden * INTERMEDIATE_RATIO),
        tower_hidden_size=tower,
        tower_depth=max(1, setting.layers - 1),
        tower_num_heads=tower // HEAD_DIM,
        tower_intermediate_size=round(tower * TOWER_INTERMEDIATE_RATIO),
        window_px=112,  # published
    )
    config = model_config(shape, IDS)
    config.get_text_config().num_key_value_heads = max(1, shape.num_heads // QUERY_HEADS_A_KEY_HEAD)
    vision: Any = config.vision_config
    vision.fullatt_block_indexes = [shape.tower_depth - 1]
    torch.manual_seed(setting.seed)
    model: Qwen2_5_VLForConditionalGeneration = Qwen2_5_VLForConditionalGeneration._from_config(  # type: ignore[no-untyped-call]
        config, dtype=torch.float32
    )
    return model


def proportions(model: Qwen2_5_VLForConditionalGeneration) -> dict[str, float]:
    """Multiplications of weights, of those of a token in the decoder's layers: by the head for a token (7B: 0.08), by
    the tower for a visual token (7B: 0.40)."""

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    decoder, tower = count(model.model.language_model.layers), model.model.visual
    of_patches = MERGE_SIZE**2 * (count(tower.blocks) + count(tower.patch_embed))
    return {"head": count(model.lm_head) / decoder, "tower": (of_patches + count(tower.merger)) / decoder}


def random_sample(setting: Setting) -> Encoded:
    """Random text and patches in the layout of the published data."""
    generator = torch.Generator().manual_seed(setting.seed)

    def text(length: int) -> list[int]:
        ids: list[int] = torch.randint(FIRST_TEXT_ID, setting.vocabulary, (length,), generator=generator).tolist()
        return ids

    def pictures(count: int) -> PixelImages:
        rows, columns = setting.image_sides
        grids = torch.tensor([[1, MERGE_SIZE * rows, MERGE_SIZE * columns]] * count).reshape(count, 3)
        num_values = 3 * TEMPORAL_PATCH_SIZE * PATCH_PX**2
        values = torch.randn(int(grids.prod(-1).sum()), num_values, generator=generator)
        return PixelImages(values, grids, MERGE_SIZE)

    num_asked = round(setting.text_tokens * QUESTION_SHARE)
    num_said = (setting.text_tokens - num_asked) // (setting.blocks + 1)
    ids = [IDS.vision_start, *[IDS.image_pad] * setting.image_tokens, IDS.vision_end, *text(num_asked), IDS.im_end]
    prompt_length, blocks = len(ids), []
    ids += HEADER
    for _ in range(setting.blocks):
        ids += [*text(num_said), IDS.latent_start]
        blocks.append(Block(len(ids), LATENT_SIZE))
        ids += [*[IDS.latent_pad] * LATENT_SIZE, IDS.latent_end]
    ids += [*text(num_said), IDS.im_end]
    labels = torch.tensor(ids)
    labels[: prompt_length + len(HEADER)] = IGNORED_LABEL
    labels[labels == IDS.latent_pad] = IGNORED_LABEL
    images = pictures(1)
    return Encoded(
        input_ids=torch.tensor(ids),
        labels=labels,
        positions_3T=mrope_positions(ids, IDS.image_pad, images.token_grids),
        prompt_length=prompt_length,
        blocks=tuple(blocks),
        images=images,
        helpers=pictures(setting.blocks) if setting.blocks else None,
        target_cells=(None,) * setting.blocks,
    )
