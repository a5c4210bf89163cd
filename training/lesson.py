"""What is wrapped for distributed training: the student with its losses and, if it moves, its teacher.

One module with one forward pass, so that DDP, FSDP2 and DeepSpeed see every parameter and hook every layer once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import Batch
from training.objective import Objective, Weights
from training.recipes import StageRecipe
from training.teacher import SelectionSettings, Targets, Teacher, targets


def loss_weights(recipe: StageRecipe) -> Weights:
    """Of the losses, as the recipe has them."""
    return Weights(
        cross_entropy=recipe.cross_entropy_weight, alignment=recipe.alignment_weight, noise_std=recipe.target_noise
    )


def has_moving_teacher(recipe: StageRecipe) -> bool:
    """Whether targets are made anew at every step. Stage 2 has none."""
    return recipe.stage == "stage1" and recipe.teacher == "ema"


class Lesson(nn.Module):
    """Student and teacher. ``teacher`` is a copy of the student made here, None if targets come from a cache."""

    def __init__(
        self, student: Qwen2_5_VLForConditionalGeneration, recipe: StageRecipe, settings: SelectionSettings
    ) -> None:
        super().__init__()
        self._recipe = recipe
        self._settings = settings
        is_recomputed = recipe.gradient_checkpointing and recipe.stage == "stage2"
        self.objective = Objective(student, loss_weights(recipe), checkpointed=is_recomputed)
        self._ema = Teacher(student, settings) if has_moving_teacher(recipe) else None
        self.teacher = self._ema.model if self._ema else None

    def forward(self, batch: Batch, given: Targets | None = None, least_pads: Sequence[int] = ()) -> dict[str, Tensor]:
        """Losses by sample, [B] each: ``total``, ``cross_entropy`` and, with targets, ``similarity``.

        A dict of tensors, since the hooks of sharded training look for tensors in the output.
        """
        if self.teacher is not None:
            given = self._look(self.teacher, batch)
        # Not as a call of the module, whose output DeepSpeed would take apart; it owns no parameters by itself.
        losses = self.objective.forward(batch, self._recipe.stage, given, least_pads=least_pads)
        found = {"total": losses.total, "cross_entropy": losses.cross_entropy}
        if losses.similarity is not None:
            found["similarity"] = losses.similarity
        return found

    @torch.no_grad()
    def follow(self) -> None:
        """After an optimizer step: the teacher moves towards the student by the recipe's EMA."""
        if self._ema is not None:
            self._ema.update(self.objective.model, self._recipe.ema_decay)

    def train(self, mode: bool = True) -> "Lesson":
        """As of any module, but the teacher stays as it is used: without dropout."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.train(False)
        return self

    def _look(self, teacher: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> Targets:
        """Targets by the teacher. User pooling uses projections of the last layer outside of that layer's own call, so
        that a sharded layer must stay gathered until then."""
        last = teacher.model.language_model.layers[-1]
        if isinstance(last, FSDPModule):
            last.set_reshard_after_forward(False)
        found = targets(teacher, batch, self._settings)
        if isinstance(last, FSDPModule):
            last.reshard()
        return found
