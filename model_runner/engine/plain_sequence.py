"""One sequence of the published loop (XD111ds/ILVR, ``generate`` at batch 1): what is fed at each position, and where.

Shape letters: T tokens, D hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from contracts.manifest import LatentSpec

# (hidden state of the position before [1, D], position, phase after it) -> what is fed, [1, D]
Feed = Callable[[Tensor, int, int], Tensor]


class PlainSequence:
    """One sequence with its KV cache: feed it a prompt, then token after token. ``latents`` were fed, by position."""

    def __init__(self, model: Any, spec: LatentSpec, feed: Feed | None) -> None:
        self._model = model
        self._spec = spec
        self._cache = DynamicCache()
        self._positions_31T = torch.empty(3, 1, 0, dtype=torch.int64)  # of the prompt
        self._hidden = torch.empty(0)
        self._feed = feed
        self.latents: dict[int, Tensor] = {}
        self.phase = 0

    def read_prompt(self, ids: list[int], images: dict[str, Tensor]) -> Tensor:
        """Up to each latent block of the history in one go, and its pads one by one. Last hidden state, [D]."""
        embeds_1TD = self._embedded(ids, images)
        self._positions_31T = self._placed(ids, images)
        begin = 0
        while begin < len(ids):
            if self._is_latent(ids[begin]):
                self.step(ids[begin])
                begin += 1
                continue
            start_id = self._spec.start_id
            end = 1 + ids.index(start_id, begin) if start_id in ids[begin:] else len(ids)
            self._compute(embeds_1TD[:, begin:end], self._positions_31T[:, :, begin:end])
            self.phase = int(ids[end - 1] == start_id)
            begin = end
        return self._hidden

    def step(self, token: int) -> Tensor:
        """Feed one token: a pad inside a block as the hidden state before it, any other as its embedding."""
        place = self._cache.get_seq_length()
        if self._is_latent(token):
            own = self._hidden[None]
            fed = own if self._feed is None else self._feed(own, place, self.phase + 1)
            self.latents[place] = fed[0]
            embeds_1TD, self.phase = fed[None], self.phase + 1
        else:
            embeds_1TD = self._model.get_input_embeddings()(torch.tensor([[token]]))
            self.phase = int(token == self._spec.start_id)
        num_prompt_tokens = self._positions_31T.shape[2]
        if place < num_prompt_tokens:
            position_31T = self._positions_31T[:, :, place : place + 1]
        else:  # the same on all three axes, and the next one after the prompt's
            position_31T = self._positions_31T.max() + 1 + torch.full((3, 1, 1), place - num_prompt_tokens)
        return self._compute(embeds_1TD, position_31T)

    def _is_latent(self, token: int) -> bool:
        return token == self._spec.pad_id and 1 <= self.phase <= self._spec.size

    def _compute(self, embeds_1TD: Tensor, positions_31T: Tensor) -> Tensor:
        output = self._model.model.language_model(
            inputs_embeds=embeds_1TD, position_ids=positions_31T, past_key_values=self._cache, use_cache=True
        )
        self._hidden = output.last_hidden_state[0, -1]
        return self._hidden

    def _embedded(self, ids: list[int], images: dict[str, Tensor]) -> Tensor:
        """Embeddings of tokens, [1, T, D], and of images in the place of theirs."""
        ids_1T = torch.tensor([ids])
        embeds_1TD: Tensor = self._model.get_input_embeddings()(ids_1T)
        if images:
            features = torch.cat(self._model.model.get_image_features(**images).pooler_output)
            embeds_1TD[ids_1T == self._model.config.image_token_id] = features.to(embeds_1TD.dtype)
        return embeds_1TD

    def _placed(self, ids: list[int], images: dict[str, Tensor]) -> Tensor:
        """Position of each token in time, height and width, [3, 1, T]: only an image's tokens differ in them."""
        if not images:
            return torch.arange(len(ids)).expand(3, 1, -1)
        ids_1T = torch.tensor([ids])
        kinds_1T = (ids_1T == self._model.config.image_token_id).int()
        positions_31T: Tensor = self._model.model.get_rope_index(
            ids_1T, kinds_1T, image_grid_thw=images["image_grid_thw"]
        )[0]
        return positions_31T
