"""The two losses of ILVR (arXiv 2512.05665): cross entropy on the text and alignment of the latents.

Shape letters: B batch, T tokens, V vocabulary, K latents, H hidden size.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.maze_data import IGNORED_LABEL


def text_cross_entropy(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean of -log p(label) over the labels that are not IGNORED_LABEL; row t of the logits predicts label t.

    Departures from the paper: none.
    """
    return functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED_LABEL)


def alignment_loss(states_BKH: Tensor, targets_BKH: Tensor, is_filled_BK: Tensor, noise_std: float) -> Tensor:
    """L_sim = 1 - mean_j cos(H_{j-1}, stopgrad(S_j) + noise_std * eps), eps ~ N(0, I), over the filled latents j.

    ``states`` are the hidden states of the positions before each latent. Draws from torch's global generator.

    Departures from the paper: none.
    """
    targets = targets_BKH.detach()
    noisy = targets + noise_std * torch.randn_like(targets)
    cosine_BK = functional.cosine_similarity(states_BKH, noisy, dim=-1)
    return 1 - cosine_BK[is_filled_BK].mean()
