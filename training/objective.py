"""The two stages of ILVR as one module from batch to losses, so that whatever wraps a module (DDP, FSDP2, DeepSpeed)
can wrap the training.

Stage 1: latents are the teacher's selected features; L = CE + alignment_weight L_sim.
Stage 2: latents are the model's own hidden states; L = CE.

Between them this project has a third, which ILVR has not: latents are drawn, each by lot, from the model's own hidden
states, without gradient, or from the targets; L is that of stage 1 (scheduled sampling: Bengio et al. 2015, arXiv
1506.03099). It costs one more pass than stage 1, and no chain of gradients through the latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import Batch
from training.forward import embeddings, hidden_states, self_fed_hidden_states
from training.losses import alignment_loss, text_cross_entropy
from training.teacher import Targets

Stage = Literal["stage1", "sampled", "stage2"]


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
        self,
        batch: Batch,
        stage: Stage,
        targets: Targets | None = None,
        *,
        least_pads: Sequence[int] = (),
        target_share: float = 0.0,
    ) -> Losses:
        """Losses of a batch. Only stage 2 can do without targets; with them it is aligned too, which ILVR is not.

        least_pads: of stage 2, see ``self_fed_hidden_states``. target_share: of ``sampled``, the chance that a latent
        is its target.

        Raises:
            ValueError: stage 1 or ``sampled`` without targets.
        """
        embedded_BTH, features_NH = embeddings(self.model, batch)
        if stage != "stage2":
            if targets is None:
                raise ValueError(f"{stage} needs the targets of a teacher")
            filled = targets.vectors_SH.to(embedded_BTH.dtype)
            embedded_BTH = embedded_BTH.index_put((targets.row_S, targets.column_S), filled)
            if stage == "sampled":
                embedded_BTH = self._sampled(batch, embedded_BTH, targets, target_share)
            states_BTH = hidden_states(self.model, embedded_BTH, batch.positions_3BT)
        else:
            states_BTH = self_fed_hidden_states(
                self.model, batch, embedded_BTH, checkpointed=self._checkpointed, least_pads=least_pads
            )
        return replace(self._losses(batch, states_BTH, targets), features_NH=features_NH)

    def _sampled(self, batch: Batch, embedded_BTH: Tensor, targets: Targets, target_share: float) -> Tensor:
        """Of targets in their places most give way to own latents, of a free run that the others took part in."""
        is_given_S = torch.rand(len(targets.row_S), device=embedded_BTH.device) < target_share
        is_given_BT = torch.zeros(embedded_BTH.shape[:2], dtype=torch.bool, device=embedded_BTH.device)
        is_given_BT[targets.row_S, targets.column_S] = is_given_S
        with torch.no_grad():
            states_BTH = self_fed_hidden_states(self.model, batch, embedded_BTH, is_given_BT=is_given_BT)
        is_own_BT = batch.is_pad & ~is_given_BT
        previous_BTH = states_BTH.roll(1, dims=1)
        return torch.where(is_own_BT[..., None], previous_BTH, embedded_BTH)

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
