"""The two losses of ILVR (arXiv 2512.05665): cross entropy on the text and alignment of the latents, for each sample.

A batch's loss is the mean over its samples, so that eight batches of one give the gradient of one batch of eight.

Shape letters: B samples, T tokens, V vocabulary, S latents of all samples, H hidden size.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from training.batch import IGNORED_LABEL


def text_cross_entropy(states_BTH: Tensor, labels_BT: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """[B]: mean of -log p(label) over each sample's labels that are not IGNORED_LABEL, in float32.

    The state of position t - 1 predicts the label of position t. Logits are computed where there is a label only: at a
    vocabulary of 151,668 those of the prompt would be most of the memory.

    Departures from the paper: none.
    """
    row_S, column_S = (labels_BT[:, 1:] != IGNORED_LABEL).nonzero(as_tuple=True)
    logits_SV = head(states_BTH[row_S, column_S])
    losses_S = functional.cross_entropy(logits_SV.float(), labels_BT[row_S, column_S + 1], reduction="none")
    return mean_by_row(losses_S, row_S, len(labels_BT))


def alignment_loss(
    states_BTH: Tensor, row_S: Tensor, column_S: Tensor, targets_SH: Tensor, noise_std: float
) -> tuple[Tensor, Tensor]:
    """L_sim [B] = 1 - mean_j cos(H_{j-1}, stopgrad(S_j) + noise_std * eps), eps ~ N(0, I), over filled latents j of
    each sample; and the cosines [S]. Target s belongs to position ``column_S[s]`` of sample ``row_S[s]``.

    0 for a sample without latents. Draws from torch's global generator, unless ``noise_std`` is 0.

    Departures from the paper: none.
    """
    targets_SH = targets_SH.detach().float()
    if noise_std:
        targets_SH = targets_SH + noise_std * torch.randn_like(targets_SH)
    cosine_S = functional.cosine_similarity(states_BTH[row_S, column_S - 1].float(), targets_SH, dim=-1)
    return mean_by_row(1 - cosine_S, row_S, len(states_BTH)), cosine_S


def mean_by_row(values_S: Tensor, row_S: Tensor, num_rows: int) -> Tensor:
    """[num_rows]: mean of the values of each row, 0 where it has none."""
    sums = values_S.new_zeros(num_rows).index_add(0, row_S, values_S)
    return sums / torch.bincount(row_S, minlength=num_rows).clamp(min=1)
