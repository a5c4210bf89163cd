"""Forward passes of a stock Qwen2.5-VL over batches of equal layout, with latents fed back.

The latent rule (arXiv 2512.05665; released code): START is an ordinary embedding; the input embedding of each PAD is
the last hidden state, after the final norm, of the position before it; after K PADs comes END, an ordinary embedding.
All positions after the image advance the three M-RoPE axes by one.

Shape letters: B batch, N image tokens, T tokens, H hidden size, L answer tokens, K latents, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from training.tiny_model import MERGE_SIZE


def image_features(model: Qwen2_5_VLForConditionalGeneration, table_TPX: Tensor, tiles_BN: Tensor) -> Tensor:
    """Merged visual features [B, N, H] of square mosaics: the stock tower, for a batch of equal grids at once.

    Two departures for speed, neither of which changes a value: each distinct patch is embedded once, and attention runs
    on the batch instead of image by image. Right only where one window covers the whole picture.
    """
    visual = model.model.visual
    batch, num_cells = tiles_BN.shape
    grid = MERGE_SIZE * round(num_cells**0.5)
    embedded = visual.patch_embed(table_TPX.flatten(0, 1)).view(*table_TPX.shape[:2], -1)
    x = functional.embedding(tiles_BN, embedded.flatten(1)).view(batch, num_cells * table_TPX.shape[1], -1)
    positions = get_vision_position_ids(torch.tensor([[1, grid, grid]]), MERGE_SIZE)
    cos, sin = visual.rotary_pos_emb(x, positions)
    for block in visual.blocks:
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        mixed = functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        x = x + attention.proj(mixed.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    features: Tensor = visual.merger(x.flatten(0, 1)).view(batch, num_cells, -1)
    return features


def mrope_positions(prompt_ids: list[int], image_token_id: int, num_after: int) -> Tensor:
    """M-RoPE positions [3, T] of a prompt with one square picture and of ``num_after`` tokens after it."""
    num_image = prompt_ids.count(image_token_id)
    side = round(num_image**0.5)
    first = prompt_ids.index(image_token_id)
    rows = torch.arange(side).repeat_interleave(side)
    image = first + torch.stack([torch.zeros_like(rows), rows, torch.arange(side).repeat(side)])
    num_later = len(prompt_ids) - first - num_image + num_after
    before = torch.arange(first).expand(3, -1)
    later = (first + side + torch.arange(num_later)).expand(3, -1)
    return torch.cat([before, image, later], dim=1)


def prompt_embeddings(model: Qwen2_5_VLForConditionalGeneration, prompt_ids: list[int], features_BNH: Tensor) -> Tensor:
    """Input embeddings [B, T, H] of a prompt whose image pads are replaced by each picture's features."""
    batch = features_BNH.shape[0]
    image_token_id = model.config.image_token_id
    first = prompt_ids.index(image_token_id)
    last = first + prompt_ids.count(image_token_id)
    embedded = token_embeddings(model, prompt_ids, batch)
    return torch.cat([embedded[:, :first], features_BNH, embedded[:, last:]], dim=1)


def token_embeddings(model: Qwen2_5_VLForConditionalGeneration, token_ids: list[int], batch: int) -> Tensor:
    """Embeddings [B, T, H] of the same tokens in each row."""
    embedded: Tensor = model.model.language_model.embed_tokens(torch.tensor(token_ids))
    return embedded.expand(batch, -1, -1)


def hidden_states(
    model: Qwen2_5_VLForConditionalGeneration,
    embeddings_BTH: Tensor,
    positions_3T: Tensor,
    cache: DynamicCache | None = None,
) -> Tensor:
    """Last hidden states [B, T, H] after the final norm, causal; appends to ``cache``, which keeps the graph."""
    output = model.model.language_model(
        inputs_embeds=embeddings_BTH,
        position_ids=positions_3T[:, None].expand(-1, embeddings_BTH.shape[0], -1),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    states: Tensor = output.last_hidden_state
    return states


def self_fed_hidden_states(
    model: Qwen2_5_VLForConditionalGeneration,
    before_BTH: Tensor,
    after_BTH: Tensor,
    positions_3T: Tensor,
    num_latents: int,
) -> Tensor:
    """Hidden states [B, T + K + T', H] of a sequence with one latent block, computed as they are in free running.

    ``before`` ends with START, ``after`` begins with END; between them stand K latents, each the hidden state before
    it. Differentiable through all of them. Costs one pass over the sequence and K passes over one token: a KV cache
    that keeps the graph stands in for recomputing the prefix.
    """
    cache = DynamicCache()
    num_before = before_BTH.shape[1]
    states = [hidden_states(model, before_BTH, positions_3T[:, :num_before], cache)]
    for index in range(num_before, num_before + num_latents):
        latent = states[-1][:, -1:]
        states.append(hidden_states(model, latent, positions_3T[:, index : index + 1], cache))
    states.append(hidden_states(model, after_BTH, positions_3T[:, num_before + num_latents :], cache))
    return torch.cat(states, dim=1)
