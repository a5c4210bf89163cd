"""Selective perceptual modeling: which features of a helper image a latent block should stand for.

arXiv 2512.05665, as in the released code (``_teacher_build_latents``), in pure functions of one sample.

Shape letters: T prompt or text tokens, I image tokens, H hidden size, C candidates, P visual tokens of a helper image.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# Helper images of at least this many visual tokens are averaged down to this many candidates (released settings).
NUM_GROUPS = 256
# Groups of a user's image where the pooling below cannot be used (released settings, ``image_pool_k``).
NUM_POOLED = 8

Grouping = Literal["released", "whole"]


def user_pooling(prompt_TH: Tensor, image_IH: Tensor, attention: nn.Module) -> Tensor:
    """u [H] = (sum_i w_i h_i + mean_p h_p) / 2, with w the mean over heads and prompt tokens p of
    softmax_i((Wq h_p) . (Wk h_i) / sqrt(d_h)).

    ``attention`` is the last layer's, of which the q and k projections are used, without rotary and input norm.
    """
    head_dim: int = attention.head_dim  # type: ignore[assignment]
    q_ATD = attention.get_submodule("q_proj")(prompt_TH).unflatten(-1, (-1, head_dim)).transpose(0, 1)
    k_AID = attention.get_submodule("k_proj")(image_IH).unflatten(-1, (-1, head_dim)).transpose(0, 1)
    k_AID = k_AID.repeat_interleave(q_ATD.shape[0] // k_AID.shape[0], dim=0)
    weights_I = (q_ATD @ k_AID.transpose(1, 2) / math.sqrt(head_dim)).softmax(-1).mean(dim=(0, 1))
    pooled: Tensor = (weights_I @ image_IH + prompt_TH.mean(0)) / 2
    return pooled


def user_pooling_without_attention(embedded_TH: Tensor, images_IH: list[Tensor]) -> Tensor:
    """u [H] where the prompt has no image token, or no other: means of token embeddings and of grouped features."""
    text_H = embedded_TH.mean(0)
    if not images_IH:
        return text_H
    pooled_H = torch.cat([_pooled(features_IH) for features_IH in images_IH]).mean(0)
    return (text_H + pooled_H) / 2


def block_query(user_H: Tensor, text_TH: Tensor, previous_H: Tensor | None) -> Tensor:
    """q [H] of a block: the mean, with equal weights, of what there is of the user's side, the text before the block
    and the features selected for the block before it."""
    parts = [user_H]
    if len(text_TH):
        parts.append(text_TH.mean(0))
    if previous_H is not None:
        parts.append(previous_H)
    return torch.stack(parts).mean(0)


def candidates(features_PH: Tensor, grouping: Grouping = "released", num_groups: int = NUM_GROUPS) -> Tensor:
    """Candidates [C, H]: all features, or means of ``num_groups`` contiguous groups if there are at least that many.

    ``released`` cuts to a multiple of NUM_GROUPS first, and so looks at the first 256 only of 256 to 511. ``whole`` is
    this project's departure: the groups, of nearly equal size, cover the image.
    """
    num_features = len(features_PH)
    if num_features < num_groups:
        return features_PH
    if grouping == "whole":
        return functional.adaptive_avg_pool1d(features_PH.T, num_groups).T
    used_PH = features_PH[: num_features - num_features % num_groups]
    return used_PH.reshape(num_groups, -1, features_PH.shape[1]).mean(1)


def select(query_H: Tensor, candidates_CH: Tensor, latent_size: int, top_p: float) -> tuple[list[int], Tensor]:
    """Indices of the K* chosen candidates in descending similarity, and all similarities [C].

    K* = min(K_p, latent_size), where the K_p most similar are the fewest whose softmax mass reaches ``top_p``.
    """
    similarity_C = functional.cosine_similarity(candidates_CH, query_H[None], dim=-1)
    mass_C, order_C = similarity_C.softmax(0).sort(descending=True)
    num_needed = int((mass_C.cumsum(0) < top_p).sum()) + 1
    chosen: list[int] = order_C[: min(num_needed, latent_size)].tolist()
    return chosen, similarity_C


def _pooled(features_IH: Tensor) -> Tensor:
    """[NUM_POOLED, H]: means of contiguous groups, the rest cut; fewer features than groups are repeated."""
    num_features = len(features_IH)
    if num_features < NUM_POOLED:
        return features_IH.repeat(math.ceil(NUM_POOLED / num_features), 1)[:NUM_POOLED]
    return features_IH[: num_features - num_features % NUM_POOLED].reshape(NUM_POOLED, -1, features_IH.shape[1]).mean(1)
