"""A tiny random Qwen2.5-VL and samples made of random tokens and patches, for the tests of the core.

Nothing is drawn or tokenised: the tests of encoding do that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

from training.batch import IGNORED_LABEL, Batch, Block, Encoded, PixelImages, collate
from training.configs import ModelShape
from training.positions import mrope_positions
from training.teacher import SelectionSettings
from training.tiny_model import MERGE_SIZE, build_model
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
HEADER = [9, 10]  # what <|im_start|>assistant would be
FIRST_TEXT_ID, VOCAB_SIZE = 11, 48
VALUES_OF_A_PATCH = 3 * 2 * 14 * 14  # colours, frames, rows, columns

SHAPE = ModelShape(
    vocab_size=VOCAB_SIZE,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=48,
    mrope_section=(2, 3, 3),
    tower_hidden_size=16,
    tower_depth=2,
    tower_num_heads=2,
    tower_intermediate_size=24,
)
SETTINGS = SelectionSettings(
    latent_size=8,
    no_text_ids=frozenset(
        {IDS.vision_start, IDS.vision_end, IDS.image_pad, IDS.latent_pad, IDS.latent_start, IDS.latent_end}
    ),
    image_token_id=IDS.image_pad,
)


@dataclass(frozen=True)
class Said:
    """Text of so many tokens, then a block of so many pads; its helper image has rows x columns visual tokens."""

    num_text: int
    num_pads: int
    helper: tuple[int, int] = (2, 2)
    cells: tuple[int, ...] | None = None


def tiny_model(
    dtype: torch.dtype = torch.float64, attention: str = "sdpa", seed: int = 0
) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights, biases and norms too. In float64 its norms are as well: the stock ones go through float32."""
    torch.set_num_threads(1)  # with more, the threads of tensors this small mostly wait for each other
    model = build_model(SHAPE, IDS, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model = model.to(dtype)
    if dtype == torch.float64:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, Qwen2_5_VLRMSNorm):
                    norm = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon)
                    norm.weight = child.weight
                    setattr(module, name, norm)
    model.set_attn_implementation(attention)
    return model


def sample(
    said: Sequence[Said] = (),
    images: Sequence[tuple[int, int]] = ((2, 3),),
    *,
    num_asked: int = 5,
    num_last: int = 4,
    seed: int = 0,
) -> Encoded:
    """``images`` and ``num_asked`` text tokens, header, each of ``said``, and ``num_last`` text tokens.

    Images are given in rows and columns of visual tokens. With ``num_asked`` 0 the prompt is the images alone.
    """
    generator = torch.Generator().manual_seed(seed)

    def text(length: int) -> list[int]:
        return torch.randint(FIRST_TEXT_ID, VOCAB_SIZE, (length,), generator=generator).tolist()

    ids: list[int] = []
    for rows, columns in images:
        ids += [IDS.vision_start, *[IDS.image_pad] * (rows * columns), IDS.vision_end]
    if num_asked:
        ids += [*text(num_asked), IDS.im_end]
    prompt_length = len(ids)
    ids += HEADER
    blocks = []
    for one in said:
        ids += [*text(one.num_text), IDS.latent_start]
        blocks.append(Block(len(ids), one.num_pads))
        ids += [*[IDS.latent_pad] * one.num_pads, IDS.latent_end]
    ids += [*text(num_last), IDS.im_end]
    labels = torch.tensor(ids)
    labels[: prompt_length + len(HEADER)] = IGNORED_LABEL
    labels[labels == IDS.latent_pad] = IGNORED_LABEL
    pictures = pixels(images, generator)
    return Encoded(
        input_ids=torch.tensor(ids),
        labels=labels,
        positions_3T=mrope_positions(ids, IDS.image_pad, pictures.token_grids if pictures else ()),
        prompt_length=prompt_length,
        blocks=tuple(blocks),
        images=pictures,
        helpers=pixels([one.helper for one in said], generator),
        target_cells=tuple(one.cells for one in said),
    )


def pixels(sizes: Sequence[tuple[int, int]], generator: torch.Generator) -> PixelImages | None:
    """Random patches of images of rows x columns visual tokens."""
    if not sizes:
        return None
    grids = torch.tensor([[1, MERGE_SIZE * rows, MERGE_SIZE * columns] for rows, columns in sizes])
    num_patches = int(grids.prod(-1).sum())
    return PixelImages(torch.randn(num_patches, VALUES_OF_A_PATCH, generator=generator), grids, MERGE_SIZE)


def mixed_samples() -> list[Encoded]:
    """Three samples that differ in length and in the numbers of blocks (0, 1, 3), of pads and of images."""
    return [
        sample([], images=[(2, 3)], num_asked=9, num_last=11, seed=1),
        sample([Said(3, 5, (3, 3))], images=[], num_asked=4, num_last=2, seed=2),
        sample([Said(4, 2), Said(0, 3, (1, 2)), Said(2, 1, (2, 4))], images=[(1, 2), (2, 2)], num_last=3, seed=3),
    ]


def batch_of(*samples: Encoded) -> Batch:
    return collate(samples, IDS.end_of_text)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter that the loss depends on."""
    model.zero_grad()
    loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor], rtol: float) -> None:
    """Each tensor by its own largest component."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        scale = max(float(expected.abs().max()), 1e-30)
        torch.testing.assert_close(
            got[name] / scale, expected / scale, rtol=rtol, atol=rtol, msg=lambda m, n=name: f"{n}: {m}"
        )
