"""The loss of each phase on a batch of mazes.

Shape letters: B batch, N cells, T tokens, H hidden size, K latents.
"""

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from contracts.mazes import MOVES
from training.configs import Recipe
from training.forward import (
    hidden_states,
    image_features,
    mrope_positions,
    prompt_embeddings,
    self_fed_hidden_states,
    token_embeddings,
)
from training.losses import alignment_loss, text_cross_entropy
from training.maze_data import MazeBatch
from training.selection import select, user_pooling
from training.tiny_tokenizer import SpecialIds

# No shortest path through a 6x6 grid passes more cells.
MAX_PATH_CELLS = 36


class MazeLosses:
    """Losses of one model under one recipe. ``table_TPX`` are the pixel values of the tiles."""

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, table_TPX: Tensor, ids: SpecialIds, recipe: Recipe
    ) -> None:
        self._model = model
        self.cell_head = torch.nn.Linear(recipe.model.hidden_size, len(MOVES) + MAX_PATH_CELLS + 1)
        self._table = table_TPX
        self._ids = ids
        self._recipe = recipe

    def features(self, batch: MazeBatch) -> Tensor:
        """Visual features [B, N, H] of the pictures: computed once a step, used by the losses below."""
        return image_features(self._model, self._table, batch.tiles_BN)

    def cells(self, batch: MazeBatch, features_BNH: Tensor) -> Tensor:
        """Two cross entropies a cell, read off its visual feature by a linear head.

        One is of the best move from the cell, one of the step at which the solution is in it, if at all.

        A departure, named as such: ILVR has no such loss. A few move letters a maze are too thin a signal for so small
        a tower to learn to see from. The head is thrown away after training.
        """
        moves, steps = self.cell_head(features_BNH).split((len(MOVES), MAX_PATH_CELLS + 1), dim=-1)
        return text_cross_entropy(moves, batch.best_moves_BN) + text_cross_entropy(steps, batch.path_steps_BN)

    def direct(self, batch: MazeBatch, features_BNH: Tensor) -> Tensor:
        """Cross entropy of the answer without a latent block.

        START cannot be chosen where a block would begin, exactly as when serving turns latents off: so the batches that
        skip the block do not teach the model to skip it.
        """
        box = self._embed(batch.box_ids_BL[:, :-1])
        embeddings = torch.cat([self._before(batch, features_BNH), box], dim=1)
        states = hidden_states(self._model, embeddings, self._positions(batch, embeddings.shape[1]))
        labels = torch.cat([self._same(batch, batch.thought_ids), batch.box_labels_BL], dim=1)
        logits = self._model.lm_head(states[:, len(batch.prompt_ids) - 1 :])
        is_start = torch.zeros_like(logits, dtype=torch.bool)
        is_start[:, len(batch.thought_ids), self._ids.latent_start] = True
        return text_cross_entropy(logits.masked_fill(is_start, -torch.inf), labels)

    def stage1(
        self, batch: MazeBatch, features_BNH: Tensor, teacher: Qwen2_5_VLForConditionalGeneration
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy and L_sim with the teacher's selected features in the place of the latents."""
        targets, is_filled = self._targets(batch, teacher)
        pads = self._embed(self._same(batch, [self._ids.latent_pad] * self._recipe.latent_size))
        latents = torch.where(is_filled[..., None], targets, pads)
        embeddings = torch.cat([self._before(batch, features_BNH, starts=True), latents, self._after(batch)], dim=1)
        states = hidden_states(self._model, embeddings, self._positions(batch, embeddings.shape[1]))
        first_latent = len(batch.prompt_ids) + len(batch.thought_ids) + 1
        preceding = states[:, first_latent - 1 : first_latent - 1 + self._recipe.latent_size]
        similarity = alignment_loss(preceding, targets, is_filled, self._recipe.alignment_noise)
        return self._block_cross_entropy(batch, states), similarity

    def stage2(self, batch: MazeBatch, features_BNH: Tensor) -> Tensor:
        """Cross entropy with the model's own hidden states as latents, gradients through all of them."""
        before, after = self._before(batch, features_BNH, starts=True), self._after(batch)
        num_latents = self._recipe.latent_size
        positions = self._positions(batch, before.shape[1] + num_latents + after.shape[1])
        states = self_fed_hidden_states(self._model, before, after, positions, num_latents)
        return self._block_cross_entropy(batch, states)

    def _block_cross_entropy(self, batch: MazeBatch, states_BTH: Tensor) -> Tensor:
        """Labels: thought, START, END and the box; the latents bear none."""
        num_latents = self._recipe.latent_size
        thought = self._same(batch, [*batch.thought_ids, self._ids.latent_start])
        rest = torch.cat([self._same(batch, [self._ids.latent_end]), batch.box_labels_BL], dim=1)
        labels = torch.cat([thought, rest], dim=1)
        first = len(batch.prompt_ids) - 1
        after_block = first + thought.shape[1] + num_latents
        predicting = torch.cat([states_BTH[:, first : first + thought.shape[1]], states_BTH[:, after_block:]], dim=1)
        return text_cross_entropy(self._model.lm_head(predicting), labels)

    @torch.no_grad()
    def _targets(self, batch: MazeBatch, teacher: Qwen2_5_VLForConditionalGeneration) -> tuple[Tensor, Tensor]:
        """The published selection from the helper image; the teacher sees the context before the block."""
        num_prompt = len(batch.prompt_ids)
        features = image_features(teacher, self._table, batch.tiles_BN)
        said_ids = token_embeddings(teacher, batch.thought_ids, len(batch.mazes))
        embeddings = torch.cat([prompt_embeddings(teacher, batch.prompt_ids, features), said_ids], dim=1)
        states = hidden_states(teacher, embeddings, self._positions(batch, embeddings.shape[1]))
        first = batch.prompt_ids.index(self._ids.image_pad)
        last = first + batch.size**2
        header = batch.prompt_ids.index(self._ids.im_end) + 2  # after <|im_end|> and its newline
        visual = (self._ids.vision_start, self._ids.vision_end, self._ids.image_pad)
        asked = [index for index in range(header) if batch.prompt_ids[index] not in visual]
        user = user_pooling(teacher, states[:, asked], states[:, first:last])
        said = states[:, header : num_prompt + len(batch.thought_ids)].mean(1)
        candidates = image_features(teacher, self._table, batch.helper_tiles_BN)
        return select((user + said) / 2, candidates, self._recipe.latent_size, self._recipe.selection_top_p)

    def _before(self, batch: MazeBatch, features_BNH: Tensor, *, starts: bool = False) -> Tensor:
        """Embeddings of prompt and thought, with START if the block begins."""
        said = [*batch.thought_ids, self._ids.latent_start] if starts else batch.thought_ids
        prompt = prompt_embeddings(self._model, batch.prompt_ids, features_BNH)
        return torch.cat([prompt, token_embeddings(self._model, said, len(batch.mazes))], dim=1)

    def _after(self, batch: MazeBatch) -> Tensor:
        """Embeddings of END and of the box without its last token."""
        end = self._same(batch, [self._ids.latent_end])
        return self._embed(torch.cat([end, batch.box_ids_BL[:, :-1]], dim=1))

    def _embed(self, token_ids_BT: Tensor) -> Tensor:
        embedded: Tensor = self._model.model.language_model.embed_tokens(token_ids_BT)
        return embedded

    def _same(self, batch: MazeBatch, token_ids: list[int]) -> Tensor:
        return torch.tensor(token_ids).expand(len(batch.mazes), -1)

    def _positions(self, batch: MazeBatch, num_tokens: int) -> Tensor:
        return mrope_positions(batch.prompt_ids, self._ids.image_pad, num_tokens - len(batch.prompt_ids))
