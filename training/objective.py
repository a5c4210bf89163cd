"""The two stages of ILVR as one module from batch to losses, so that whatever wraps a module (DDP, FSDP2, DeepSpeed)
can wrap the training.

Stage 1: latents are the teacher's selected features; L = CE + alignment_weight L_sim.
Stage 2: latents are the model's own hidden states; L = CE.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import Batch
from training.forward import embeddings, hidden_states, self_fed_hidden_states
from training.losses import alignment_loss, text_cross_entropy
from training.teacher import Targets

Stage = Literal["stage1", "stage2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Of the losses, and the std of the noise added to targets; released settings."""

    cross_entropy: float = 1.0
    alignment: float = 1.0
    noise_std: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Each [B], by sample; cosine_S of each target, states_BTH the last hidden states, features_NH of the images."""

    total: Tensor
    cross_entropy: Tensor
    similarity: Tensor | None = None
    cosine_S: Tensor | None = None
    states_BTH: Tensor
    features_NH: Tensor | None = None


class Objective(nn.Module):
    """The model with its losses. ``checkpointed``: stage 2 recomputes activations in its backward pass."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, weights: Weights, checkpointed: bool = False) -> None:
        super().__init__()
        self.model = model
        self._weights = weights
        self._checkpointed = checkpointed

    def forward(
        self, batch: Batch, stage: Stage, targets: Targets | None = None, least_pads: Sequence[int] = ()
    ) -> Losses:
        """Losses of a batch. Stage 1 needs targets; stage 2 with targets is aligned too, which ILVR is not.

        Raises:
            ValueError: stage 1 without targets.
        """
        embedded_BTH, features_NH = embeddings(self.model, batch)
        if stage == "stage1":
            if targets is None:
                raise ValueError("stage 1 needs the targets of a teacher")
            filled = targets.vectors_SH.to(embedded_BTH.dtype)
            embedded_BTH = embedded_BTH.index_put((targets.row_S, targets.column_S), filled)
            states_BTH = hidden_states(self.model, embedded_BTH, batch.positions_3BT)
        else:
            states_BTH = self_fed_hidden_states(
                self.model, batch, embedded_BTH, checkpointed=self._checkpointed, least_pads=least_pads
            )
        return replace(self._losses(batch, states_BTH, targets), features_NH=features_NH)

    def _losses(self, batch: Batch, states_BTH: Tensor, targets: Targets | None) -> Losses:
        cross_entropy = text_cross_entropy(states_BTH, batch.labels_BT, self.model.lm_head)
        total = self._weights.cross_entropy * cross_entropy
        if targets is None:
            return Losses(total=total, cross_entropy=cross_entropy, states_BTH=states_BTH)
        similarity, cosine_S = alignment_loss(
            states_BTH, targets.row_S, targets.column_S, targets.vectors_SH, self._weights.noise_std
        )
        return Losses(
            total=total + self._weights.alignment * similarity,
            cross_entropy=cross_entropy,
            similarity=similarity,
            cosine_S=cosine_S,
            states_BTH=states_BTH,
        )
