"""The momentum teacher: which features each latent should stand for, from one forward pass over the batch.

The released code runs blocks + 1 equal teacher passes a step, and never updates its teacher; here the pass is made
once, and ``Teacher.update`` does what the paper intends.

Shape letters: B samples, T tokens, H hidden size, S latents of all samples, C candidates of a block.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration

from training.batch import Batch, Images
from training.forward import embeddings, hidden_states
from training.selection import (
    NUM_GROUPS,
    Grouping,
    block_query,
    candidates,
    select,
    user_pooling,
    user_pooling_without_attention,
)

# ``published``: most similar to the query. ``ordered``: in the order that the data gives (``target_cells``).
Selection = Literal["published", "ordered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    """How targets are chosen. no_text_ids: image, vision and latent ids.

    is_scaled: targets are brought to the norm that the model's own latents have, so that both look alike where they are
    fed in. A departure of this project; alignment, a cosine, is not touched.
    """

    latent_size: int
    no_text_ids: frozenset[int]
    image_token_id: int
    top_p: float = 0.9
    grouping: Grouping = "released"
    num_groups: int = NUM_GROUPS
    selection: Selection = "published"
    is_scaled: bool = False


@dataclass(frozen=True, slots=True)
class SelectedBlock:
    """How the targets of one block came about. query_H and similarity_C are None where the data gave the order."""

    chosen: list[int]
    query_H: Tensor | None
    similarity_C: Tensor | None


@dataclass(frozen=True, slots=True)
class Targets:
    """S_j: vectors_SH and the places they fill, (row_S, column_S); what else a comparison wants to see beside them."""

    vectors_SH: Tensor
    row_S: Tensor
    column_S: Tensor
    blocks: tuple[tuple[SelectedBlock, ...], ...] = ()
    users_BH: tuple[Tensor, ...] = ()

    @property
    def chosen(self) -> list[list[list[int]]]:
        """Chosen candidates by sample and block."""
        return [[block.chosen for block in sample] for sample in self.blocks]


class Teacher:
    """A copy of the student that bears no gradient; frozen, or following it by exponential moving average."""

    def __init__(self, student: Qwen2_5_VLForConditionalGeneration, settings: SelectionSettings) -> None:
        self.model = copy.deepcopy(student)
        self.model.requires_grad_(False)
        self.model.train(False)
        self._settings = settings

    def targets(self, batch: Batch) -> Targets:
        """Targets of all blocks of a batch."""
        return targets(self.model, batch, self._settings)

    @torch.no_grad()
    def update(self, student: torch.nn.Module, decay: float) -> None:
        """EMA after an optimizer step: xi <- decay xi + (1 - decay) theta. Parameters are matched by name."""
        theirs = dict(student.named_parameters())
        for name, parameter in self.model.named_parameters():
            parameter.lerp_(theirs[name].to(parameter.dtype), 1 - decay)


@torch.no_grad()
def targets(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, settings: SelectionSettings) -> Targets:
    """As in stage 1: the teacher sees raw pad embeddings in the latents' places, never latents."""
    if settings.selection == "ordered":  # no query is made, and no pass over the text is needed
        return targets_from_states(model, batch, None, settings)
    embedded_BTH, _ = embeddings(model, batch)
    # Causal, and no query looks beyond the text before its block: what follows the last START is not computed.
    end = max((block.first_pad for blocks in batch.blocks for block in blocks), default=1)
    states_BTH = hidden_states(model, embedded_BTH[:, :end], batch.positions_3BT[..., :end])
    return targets_from_states(model, batch, states_BTH, settings)


@torch.no_grad()
def targets_from_states(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, states_BTH: Tensor | None, settings: SelectionSettings
) -> Targets:
    """Targets where the last hidden states are known, up to the last START at least; ``states_BTH`` may be None if the
    data gives the order."""
    helpers = iter(_features_by_image(model, batch.helpers))
    vectors: list[Tensor] = []
    rows: list[int] = []
    columns: list[int] = []
    blocks: list[tuple[SelectedBlock, ...]] = []
    users: list[Tensor] = []
    for row, spans in enumerate(batch.blocks):
        user = None
        if states_BTH is not None and spans:
            user = _user(model, batch, row, states_BTH[row], settings)
            users.append(user)
        previous: Tensor | None = None
        selected = []
        text_from = batch.prompt_lengths[row]
        for index, block in enumerate(spans):
            features = next(helpers)
            cells = batch.target_cells[row][index]
            if user is None or states_BTH is None:
                if cells is None:
                    raise ValueError("the data gives no target_cells, which the 'ordered' selection needs")
                found = SelectedBlock(list(cells[: settings.latent_size]), None, None)
                pool = features
            else:
                text_ids = batch.ids_BT[row, text_from : block.first_pad - 1]
                is_text = _is_none_of(text_ids, settings.no_text_ids)
                query = block_query(user, states_BTH[row, text_from : block.first_pad - 1][is_text], previous)
                pool = candidates(features, settings.grouping, settings.num_groups)
                chosen, similarity = select(query, pool, settings.latent_size, settings.top_p)
                found = SelectedBlock(chosen, query, similarity)
            vector = pool[found.chosen[: block.num_pads]]
            if settings.is_scaled:
                vector = functional.normalize(vector, dim=-1) * model.model.language_model.norm.weight.norm()
            previous = vector.mean(0)
            selected.append(found)
            vectors.append(vector)
            rows += [row] * len(vector)
            columns += range(block.first_pad, block.first_pad + len(vector))
            text_from = block.end + 1
        blocks.append(tuple(selected))
    device = batch.ids_BT.device
    return Targets(
        vectors_SH=torch.cat(vectors) if vectors else model.lm_head.weight[:0],
        row_S=torch.tensor(rows, dtype=torch.long, device=device),
        column_S=torch.tensor(columns, dtype=torch.long, device=device),
        blocks=tuple(blocks),
        users_BH=tuple(users),
    )


def _user(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: Batch,
    row: int,
    states_TH: Tensor,
    settings: SelectionSettings,
) -> Tensor:
    """u of one sample, from all that stands before the assistant's header."""
    ids = batch.ids_BT[row, : batch.prompt_lengths[row]]
    states_TH = states_TH[: len(ids)]
    is_image = ids == settings.image_token_id
    is_text = _is_none_of(ids, settings.no_text_ids)
    if is_image.any() and is_text.any():
        attention = model.model.language_model.layers[-1].self_attn
        return user_pooling(states_TH[is_text], states_TH[is_image], attention)
    first = sum(batch.num_images[:row])
    images = list(_features_by_image(model, batch.images))[first : first + batch.num_images[row]]
    shown = is_text if is_text.any() else torch.ones_like(is_text)
    return user_pooling_without_attention(model.get_input_embeddings()(ids[shown]), images)


def _features_by_image(model: Qwen2_5_VLForConditionalGeneration, images: Images | None) -> Iterator[Tensor]:
    if images is not None:
        yield from torch.split(images.features(model), list(images.num_tokens))


def _is_none_of(ids: Tensor, excluded: frozenset[int]) -> Tensor:
    return ~torch.isin(ids, torch.tensor(sorted(excluded), device=ids.device))
