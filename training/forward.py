"""Forward passes of the stock Qwen2.5-VL over padded batches, and with latents fed back.

The latent rule (arXiv 2512.05665; released code): START and END are ordinary embeddings; the input embedding of a pad
is the last hidden state, after the final norm, of the position before it.

Shape letters: B samples, T tokens, Q tokens of a segment, H hidden size, L layers, N cached tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import Batch


def embeddings(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Input embeddings [B, T, H]: of the tokens, and in the place of image tokens the features of the images, which
    are also given by themselves [N, H]."""
    embedded: Tensor = model.get_input_embeddings()(batch.ids_BT)
    if batch.images is None:
        return embedded, None
    features_NH = batch.images.features(model).to(embedded.dtype)
    is_image_BT = batch.ids_BT == model.config.image_token_id
    return embedded.masked_scatter(is_image_BT[..., None], features_NH), features_NH


def hidden_states(model: Qwen2_5_VLForConditionalGeneration, embeddings_BTH: Tensor, positions_3BT: Tensor) -> Tensor:
    """Last hidden states [B, T, H] after the final norm. Causal, and padding is on the right: no mask is needed."""
    output = model.model.language_model(inputs_embeds=embeddings_BTH, position_ids=positions_3BT, use_cache=False)
    states: Tensor = output.last_hidden_state
    return states


def self_fed_hidden_states(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: Batch,
    embeddings_BTH: Tensor,
    *,
    checkpointed: bool = False,
    least_pads: Sequence[int] = (),
    is_given_BT: Tensor | None = None,
) -> Tensor:
    """Last hidden states [B, T, H] with each pad's embedding replaced by the hidden state before it.

    Differentiable through all latents. Round m computes the text before block m of every sample at once and then its
    pads one by one, over keys and values that keep the graph: the layers see each token once, where the released
    leftover passes the whole prefix through them for every latent. What is left of latents x prefix is attention
    itself and one copy of keys and values, which ``checkpointed`` does not keep.

    checkpointed: recompute each layer in the backward pass instead of keeping its activations.
    least_pads: for each round at least so many passes over one token. Sharded training gathers a layer's parameters at
    every call, so that all ranks must make the same calls: give the maximum of ``pads_by_round`` over the ranks.
    is_given_BT: pads that keep their embedding instead.
    """
    decoder = _CachedDecoder(model, checkpointed)
    device = embeddings_BTH.device
    row_B1 = torch.arange(len(batch.lengths), device=device)[:, None]
    places: list[Tensor] = []  # [2, S]: rows and positions of the states that follow
    states: list[Tensor] = []  # [S, H]

    def append(segment: _Segment, inputs_BQH: Tensor | None = None) -> Tensor:
        index_BQ, is_real_BQ = segment.index(device)
        if inputs_BQH is None:
            inputs_BQH = embeddings_BTH[row_B1, index_BQ]
        new_BQH = decoder.append(inputs_BQH, batch.positions_3BT[:, row_B1, index_BQ], is_real_BQ, segment.is_full)
        places.append(torch.stack([row_B1.expand_as(index_BQ)[is_real_BQ], index_BQ[is_real_BQ]]))
        states.append(new_BQH[is_real_BQ])
        return new_BQH

    for one in _rounds(batch, least_pads):
        last_BQH = append(one.text)
        last_index_B = torch.tensor(one.text.lengths, device=device).sub(1).clamp(min=0)
        fed_B1H = last_BQH[row_B1[:, 0], last_index_B][:, None]
        for step in range(one.num_steps):
            pad = one.pad(step)
            if is_given_BT is not None:
                index_B1, _ = pad.index(device)
                is_given_B11 = is_given_BT[row_B1, index_B1][..., None]
                fed_B1H = torch.where(is_given_B11, embeddings_BTH[row_B1, index_B1], fed_B1H)
            fed_B1H = append(pad, fed_B1H)
    row_S, column_S = torch.cat(places, dim=1)
    return torch.zeros_like(embeddings_BTH).index_put((row_S, column_S), torch.cat(states))


@dataclass(frozen=True, slots=True)
class _Segment:
    """Tokens from ``starts[b]``, ``lengths[b]`` of them, of each sample."""

    starts: Sequence[int]
    lengths: Sequence[int]

    @property
    def is_full(self) -> bool:
        """Whether no sample needs padding here."""
        return min(self.lengths) == max(1, *self.lengths)

    def index(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions [B, Q] of the tokens, padded on the right with any position, and which are no padding [B, Q]."""
        offsets = torch.arange(max(1, *self.lengths), device=device)
        is_real = offsets < torch.tensor(self.lengths, device=device)[:, None]
        index = torch.tensor(self.starts, device=device)[:, None] + offsets
        return torch.where(is_real, index, 0), is_real


@dataclass(frozen=True, slots=True)
class _Round:
    text: _Segment
    first_pads: Sequence[int]
    nums_pads: Sequence[int]
    num_steps: int

    def pad(self, step: int) -> _Segment:
        return _Segment([first + step for first in self.first_pads], [int(step < num) for num in self.nums_pads])


def pads_by_round(batch: Batch) -> list[int]:
    """Passes over one token that each round needs: one more round than the most blocks of a sample."""
    num_rounds = max(map(len, batch.blocks)) + 1
    return [max((row[m].num_pads for row in batch.blocks if m < len(row)), default=0) for m in range(num_rounds)]


def _rounds(batch: Batch, least_pads: Sequence[int]) -> list[_Round]:
    """Round m: text up to START of block m and its pads; a sample without such a block brings the rest of its text."""
    at = [0] * len(batch.lengths)
    rounds = []
    for index, nums_steps in enumerate(zip_longest(pads_by_round(batch), least_pads, fillvalue=0)):
        starts, lengths, first_pads, nums_pads = list(at), [], [], []
        for row, blocks in enumerate(batch.blocks):
            block = blocks[index] if index < len(blocks) else None
            text_end = block.first_pad if block else batch.lengths[row]
            lengths.append(text_end - at[row])
            first_pads.append(text_end)
            nums_pads.append(block.num_pads if block else 0)
            at[row] = text_end + nums_pads[-1]
        rounds.append(_Round(_Segment(starts, lengths), first_pads, nums_pads, max(nums_steps)))
    return rounds


class _CachedDecoder:
    """The language model's own layers over keys and values of all tokens so far, which keep the graph."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, checkpointed: bool) -> None:
        self._decoder = model.model.language_model
        self._checkpointed = checkpointed
        self._cache: list[list[Tensor]] = [[] for _ in self._decoder.layers]
        self._is_real_BN: Tensor | None = None
        self._is_full = True

    def append(self, inputs_BQH: Tensor, positions_3BQ: Tensor, is_real_BQ: Tensor, is_full: bool) -> Tensor:
        """Hidden states [B, Q, H] after the final norm of the next tokens; padding among them is never looked at."""
        self._is_full &= is_full
        mask = self._mask(is_real_BQ, inputs_BQH.dtype)
        rotary = self._decoder.rotary_emb(inputs_BQH, positions_3BQ)
        x = inputs_BQH
        for layer, cached in zip(self._decoder.layers, self._cache, strict=True):
            if self._checkpointed:
                x, key, value = checkpoint(_layer, layer, x, mask, rotary, *cached, use_reentrant=False)
            else:
                x, key, value = _layer(layer, x, mask, rotary, *cached)
            cached += [key, value]
        normed: Tensor = self._decoder.norm(x)
        return normed

    def _mask(self, is_real_BQ: Tensor, dtype: torch.dtype) -> Tensor | None:
        """[B, 1, Q, N]: real tokens of earlier segments and, causally, of this one, whose padding is at its end. None
        where the attention does that anyway: for the first tokens, and for one token after no padding."""
        before = self._is_real_BN
        after = is_real_BQ if before is None else torch.cat([before, is_real_BQ], dim=1)
        self._is_real_BN = after
        attention = self._decoder.config._attn_implementation
        num_new = is_real_BQ.shape[1]
        if attention == "eager":
            pass  # makes no mask of its own
        elif before is None or (num_new == 1 and self._is_full):
            return None
        elif "flash" in attention:
            if not self._is_full:
                raise ValueError("flash attention takes no mask: use sdpa, or batches of one sample in stage 2")
            return None  # causal from the last key backwards
        allowed_QQ = torch.ones(num_new, num_new, dtype=torch.bool, device=is_real_BQ.device).tril()
        allowed_BQN = allowed_QQ.expand(len(is_real_BQ), -1, -1)
        if before is not None:
            allowed_BQN = torch.cat([before[:, None].expand(-1, num_new, -1), allowed_BQN], dim=2)
        mask = torch.zeros(allowed_BQN.shape, dtype=dtype, device=allowed_BQN.device)
        return mask.masked_fill(~allowed_BQN, torch.finfo(dtype).min)[:, None]


def _layer(
    layer: torch.nn.Module, x_BQH: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor], *cached: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Output of a layer and the keys and values of the new tokens; ``cached`` alternates keys and values."""
    cache = _Appending(cached)
    output: Tensor = layer(x_BQH, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
    return output, cache.key, cache.value


class _Appending:
    """The one method that a layer calls on its cache."""

    def __init__(self, cached: tuple[Tensor, ...]) -> None:
        self._cached = cached

    def update(self, key: Tensor, value: Tensor, layer_index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens, [B, heads, N, head_dim]."""
        self.key, self.value = key, value
        return torch.cat([*self._cached[::2], key], dim=2), torch.cat([*self._cached[1::2], value], dim=2)
