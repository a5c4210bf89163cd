"""The training step of the released code in its own, naive form: what ``benchmarks.training`` measures against.

Written for this comparison on the stock model; right for a batch of one sample, as the released code is. What is known
of that code (XD111ds/ILVR; its trainer of stage 1, and the stage-2 branch left in its model):

* Stage 1: the teacher makes one whole forward pass to pool the user's side and one for each block, all equal, each with
  the visual tower and logits of all positions; the student's tower passes over the helper images once more, and the
  result is thrown away; the loss computes logits of all positions in float32. Keys and values are of no use here.
* Stage 2: one pass over the whole prefix for each latent and one over the whole sequence, with no cache of keys and
  values (``use_cache=False``), each recomputed in the backward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import Batch
from training.forward import embeddings, hidden_states
from training.losses import alignment_loss
from training.teacher import SelectionSettings, Targets, targets_from_states


def naive_stage1_loss(
    student: Qwen2_5_VLForConditionalGeneration,
    teacher: Qwen2_5_VLForConditionalGeneration,
    batch: Batch,
    settings: SelectionSettings,
) -> tuple[Tensor, Targets]:
    """Loss without noise, a scalar, and the teacher's targets."""
    with torch.no_grad():
        for _ in range(len(batch.blocks[0]) + 1):
            states = hidden_states(teacher, embeddings(teacher, batch)[0], batch.positions_3BT)
            teacher.lm_head(states)
        targets = targets_from_states(teacher, batch, states, settings)
        if batch.helpers is not None:
            batch.helpers.features(student)
    embedded, _ = embeddings(student, batch)
    embedded = embedded.index_put((targets.row_S, targets.column_S), targets.vectors_SH)
    states = hidden_states(student, embedded, batch.positions_3BT)
    similarity, _ = alignment_loss(states, targets.row_S, targets.column_S, targets.vectors_SH, noise_std=0.0)
    return _cross_entropy(student, batch, states) + similarity[0], targets


def naive_stage2_loss(
    student: Qwen2_5_VLForConditionalGeneration, batch: Batch, *, checkpointed: bool = True
) -> Tensor:
    """Loss, a scalar, with self-fed latents."""
    embedded, _ = embeddings(student, batch)
    states = self_fed_by_whole_prefixes(student, batch, embedded, checkpointed=checkpointed)
    return _cross_entropy(student, batch, states)


def self_fed_by_whole_prefixes(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: Batch,
    embeddings_BTH: Tensor,
    *,
    checkpointed: bool = False,
    fed: Callable[[Tensor], Tensor] = lambda state: state,
) -> Tensor:
    """Last hidden states [1, T, H] by one pass for each latent, over all tokens before it.

    checkpointed: recompute each pass in the backward pass. fed: what becomes of a state on its way to the next input.

    Raises:
        ValueError: the batch holds more than one sample.
    """
    if len(batch.lengths) != 1:
        raise ValueError(
            "a pass over whole prefixes takes batches of one sample, since latents stand in one place only"
        )

    def states_of(embedded_BTH: Tensor) -> Tensor:
        positions = batch.positions_3BT[..., : embedded_BTH.shape[1]]
        if checkpointed:
            states: Tensor = checkpoint(hidden_states, model, embedded_BTH, positions, use_reentrant=False)
            return states
        return hidden_states(model, embedded_BTH, positions)

    filled = embeddings_BTH
    for block in batch.blocks[0]:
        for pad in range(block.first_pad, block.end):
            latent = fed(states_of(filled[:, :pad])[:, -1:])
            filled = torch.cat([filled[:, :pad], latent, filled[:, pad + 1 :]], dim=1)
    return states_of(filled)


def _cross_entropy(student: Qwen2_5_VLForConditionalGeneration, batch: Batch, states_BTH: Tensor) -> Tensor:
    """Of all positions, in float32, labels that do not count left out of the mean only."""
    logits = student.lm_head(states_BTH).float()
    return functional.cross_entropy(logits[0, :-1], batch.labels_BT[0, 1:])
