"""Targets of a frozen teacher for a whole data set, before training begins.

A frozen teacher is the base model as it stands before the first step: no copy is made, and its pass over the data
happens once, shared out among the processes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import collate
from training.encoding import Encoder
from training.frozen_tower import FrozenTower
from training.samples import Sample
from training.target_cache import TargetCache, split
from training.teacher import SelectionSettings, targets


@dataclass(frozen=True, kw_only=True)
class FrozenTeacher:
    """The base model on its device. ``tower``: None if the model has kept it. ``autocast``: as in training."""

    model: Qwen2_5_VLForConditionalGeneration
    tower: FrozenTower | None
    settings: SelectionSettings
    device: torch.device
    autocast: Callable[[], AbstractContextManager[None]]

    def fill(
        self,
        cache: TargetCache,
        samples: Sequence[Sample],
        keys: Sequence[str],
        encoder: Encoder,
        on_done: Callable[[int, int], None],
    ) -> None:
        """Write the targets of these samples, one at a time: no padding, and a stop loses one sample.

        on_done: called with how many are done, and of how many.
        """
        for number, (sample, key) in enumerate(zip(samples, keys, strict=True), start=1):
            batch = collate([encoder.encode(sample)], encoder.padding_id).to(self.device)
            with torch.no_grad(), self.autocast():
                if self.tower is not None:
                    batch = self.tower.see(batch)
                found = targets(self.model, batch, self.settings)
            cache.write(key, split(found)[0])
            on_done(number, len(samples))
