"""What the losses are computed on: samples as token ids, with the places of their images and latent blocks.

Shape letters: B samples, T tokens, N visual tokens of all images, P patches, X values of a patch, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2_5_VLForConditionalGeneration

from training.positions import Grid

IGNORED_LABEL = -100


class Images(Protocol):
    """Some images in order."""

    @property
    def num_tokens(self) -> Sequence[int]:
        """Visual tokens of each image."""

    def features(self, model: Qwen2_5_VLForConditionalGeneration) -> Tensor:
        """Merged visual features [N, H] of all of them, by the model's tower."""

    def to(self, device: torch.device) -> "Images":
        """The same on a device."""


@dataclass(frozen=True, slots=True)
class PixelImages:
    """values_PX: normalised patches, as the image processor gives them. grids: [number of images, 3] int64."""

    values_PX: Tensor
    grids: Tensor
    merge_size: int

    @property
    def num_tokens(self) -> Sequence[int]:
        counts: list[int] = (self.grids.prod(-1) // self.merge_size**2).tolist()
        return counts

    @property
    def token_grids(self) -> list[Grid]:
        """Of each image."""
        return [
            (frames, rows // self.merge_size, columns // self.merge_size)
            for frames, rows, columns in self.grids.tolist()
        ]

    def features(self, model: Qwen2_5_VLForConditionalGeneration) -> Tensor:
        tower = model.model.visual
        features: Tensor = tower(self.values_PX.to(tower.dtype), grid_thw=self.grids).pooler_output
        return features

    def to(self, device: torch.device) -> "PixelImages":
        return replace(self, values_PX=self.values_PX.to(device), grids=self.grids.to(device))


@dataclass(frozen=True, slots=True)
class Block:
    """A latent block: ``num_pads`` pads from position ``first_pad``, between START and END."""

    first_pad: int
    num_pads: int

    @property
    def end(self) -> int:
        """Position of END."""
        return self.first_pad + self.num_pads


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One sample as the model sees it. ids and labels: [T] int64; positions_3T: M-RoPE positions.

    prompt_length: tokens before the assistant's header. header_length: tokens of ``<|im_start|>assistant``.
    target_cells: for each block the visual tokens of its helper image in a given order, or None.
    """

    input_ids: Tensor
    labels: Tensor
    positions_3T: Tensor
    prompt_length: int
    blocks: tuple[Block, ...]
    images: Images | None
    helpers: Images | None
    target_cells: tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples padded on the right. Causal attention never looks there, so that padding changes no value.

    ids_BT, labels_BT: int64, padding has IGNORED_LABEL. positions_3BT: int64. lengths: tokens of each sample.
    images and helpers: of all samples, in order; a helper image for each block.
    """

    ids_BT: Tensor
    labels_BT: Tensor
    positions_3BT: Tensor
    lengths: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
    blocks: tuple[tuple[Block, ...], ...]
    num_images: tuple[int, ...]
    images: Images | None
    helpers: Images | None
    target_cells: tuple[tuple[tuple[int, ...] | None, ...], ...]

    @property
    def is_pad(self) -> Tensor:
        """[B, T] bool: which tokens are pads of a latent block."""
        at = torch.arange(self.ids_BT.shape[1], device=self.ids_BT.device)
        rows = []
        for blocks in self.blocks:
            inside = [(at >= block.first_pad) & (at < block.end) for block in blocks]
            rows.append(torch.stack(inside).any(0) if inside else torch.zeros_like(at, dtype=torch.bool))
        return torch.stack(rows)

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return replace(
            self,
            ids_BT=self.ids_BT.to(device),
            labels_BT=self.labels_BT.to(device),
            positions_3BT=self.positions_3BT.to(device),
            images=self.images and self.images.to(device),
            helpers=self.helpers and self.helpers.to(device),
        )


def collate(samples: Sequence[Encoded], padding_id: int) -> Batch:
    """One batch of several samples."""
    return Batch(
        ids_BT=pad_sequence([one.input_ids for one in samples], batch_first=True, padding_value=padding_id),
        labels_BT=pad_sequence([one.labels for one in samples], batch_first=True, padding_value=IGNORED_LABEL),
        positions_3BT=pad_sequence([one.positions_3T.T for one in samples], batch_first=True).permute(2, 0, 1),
        lengths=tuple(len(one.input_ids) for one in samples),
        prompt_lengths=tuple(one.prompt_length for one in samples),
        blocks=tuple(one.blocks for one in samples),
        num_images=tuple(len(one.images.num_tokens) if one.images else 0 for one in samples),
        images=_joined([one.images for one in samples]),
        helpers=_joined([one.helpers for one in samples]),
        target_cells=tuple(one.target_cells for one in samples),
    )


def _joined(parts: Sequence[Images | None]) -> Images | None:
    found = [part for part in parts if isinstance(part, PixelImages)]
    if len(found) < sum(part is not None for part in parts):
        raise TypeError("only samples whose images are pixels can be joined")
    if not found:
        return None
    values = torch.cat([part.values_PX for part in found])
    return PixelImages(values, torch.cat([part.grids for part in found]), found[0].merge_size)
