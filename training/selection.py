"""Which features of the helper image a latent block should stand for: the published selection.

arXiv 2512.05665, "selective perceptual modeling", as in the released code, for one block and one picture: a query is
pooled from the teacher's hidden states, candidates are ranked by cosine to it, and the top K become the targets.

Shape letters: B batch, T context tokens, N image tokens, H hidden size, C candidates, K latents.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration


def user_pooling(teacher: Qwen2_5_VLForConditionalGeneration, prompt_BPH: Tensor, image_BNH: Tensor) -> Tensor:
    """u [B, H]: the mean of an attention-pooled image and of the mean prompt state.

    The weights are softmax(Wq h_p . Wk h_i / sqrt(d_h)) over image tokens, averaged over heads and prompt tokens, with
    the last layer's projections, no rotary and no input norm.
    """
    attention = teacher.model.language_model.layers[-1].self_attn
    head_dim = attention.head_dim
    q = attention.q_proj(prompt_BPH).unflatten(-1, (-1, head_dim)).transpose(1, 2)
    k = attention.k_proj(image_BNH).unflatten(-1, (-1, head_dim)).transpose(1, 2)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    weights_BN = (q @ k.transpose(2, 3) / math.sqrt(head_dim)).softmax(-1).mean(dim=(1, 2))
    pooled_image = (weights_BN[..., None] * image_BNH).sum(1)
    pooled: Tensor = (pooled_image + prompt_BPH.mean(1)) / 2
    return pooled


def select(query_BH: Tensor, candidates_BCH: Tensor, latent_size: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Targets S [B, K, H] in descending similarity, and whether each is filled [B, K].

    The smallest set whose softmax mass reaches ``top_p``, at most K. With fewer candidates than K the rest stays
    unfilled.
    """
    batch, num_candidates, hidden_size = candidates_BCH.shape
    similarity_BC = functional.cosine_similarity(query_BH[:, None], candidates_BCH, dim=-1)
    order_BC = similarity_BC.argsort(dim=-1, descending=True)
    mass_BC = similarity_BC.softmax(-1).gather(1, order_BC).cumsum(-1)
    num_needed_B = (mass_BC < top_p).sum(-1) + 1
    num_taken = min(latent_size, num_candidates)
    chosen = order_BC[:, :num_taken, None].expand(-1, -1, hidden_size)
    targets = torch.zeros(batch, latent_size, hidden_size)
    targets[:, :num_taken] = candidates_BCH.gather(1, chosen)
    is_filled_BK = torch.arange(latent_size) < num_needed_B[:, None].clamp(max=num_taken)
    return targets, is_filled_BK
