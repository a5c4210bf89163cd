"""The visual tower where it is not trained: outside of what is wrapped for training, and run once a batch.

Features of a frozen tower are data. Computing them outside saves gradients, gathers and the second pass of a teacher
whose tower is the same; and a sample without images is then no different to sharded training, in which every rank must
call the same modules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from training.batch import Batch, Images, PixelImages


@dataclass(frozen=True, slots=True)
class FeatureImages:
    """Images whose visual features [N, H] are known."""

    features_NH: Tensor
    num_tokens: Sequence[int]

    def features(self, model: Qwen2_5_VLForConditionalGeneration) -> Tensor:
        return self.features_NH

    def to(self, device: torch.device) -> "FeatureImages":
        return replace(self, features_NH=self.features_NH.to(device))


class FrozenTower:
    """The tower of a model, taken out of it."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        tower: Qwen2_5_VisionTransformerPretrainedModel = model.model.visual
        tower.requires_grad_(False)
        tower.train(False)
        self.module = tower
        model.model.visual = None  # nothing in training calls it there

    @torch.no_grad()
    def see(self, batch: Batch) -> Batch:
        """The same batch with features in the place of pixels."""
        return replace(batch, images=self._seen(batch.images), helpers=self._seen(batch.helpers))

    def _seen(self, images: Images | None) -> Images | None:
        if not isinstance(images, PixelImages):
            return images
        values = images.values_PX.to(self.module.dtype)
        features: Tensor = self.module(values, grid_thw=images.grids).pooler_output
        return FeatureImages(features, images.num_tokens)
