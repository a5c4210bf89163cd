"""The teacher against the published steps written out one by one on the stock model, and its own life."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from tests.training.tiny import IDS, SETTINGS, Said, batch_of, mixed_samples, sample, tiny_model
from training.batch import Encoded, PixelImages
from training.teacher import Targets, Teacher, targets

TOLERANCE = 1e-9  # float64, sums in another order


def _features(model: Qwen2_5_VLForConditionalGeneration, images: PixelImages) -> list[Tensor]:
    """Of each image by itself."""
    split = images.values_PX.double().split(images.grids.prod(-1).tolist())
    return [
        model.model.visual(values, grid_thw=grid[None]).pooler_output
        for values, grid in zip(split, images.grids, strict=True)
    ]


@torch.no_grad()
def _by_hand(model: Qwen2_5_VLForConditionalGeneration, one: Encoded, latent_size: int = 8) -> list[Tensor]:
    """S of each block, by the steps a to e of the published stage 1, for fewer than 256 candidates.

    The states are the stock model's, of ids and pixels alone: in the latents' places it sees the pads' embeddings.
    """
    ids = one.input_ids.tolist()
    states = model.model(
        input_ids=one.input_ids[None],
        pixel_values=one.images.values_PX.double(),
        image_grid_thw=one.images.grids,
        mm_token_type_ids=(one.input_ids[None] == IDS.image_pad).int(),
        use_cache=False,
    ).last_hidden_state[0]

    def text_between(start: int, end: int) -> list[int]:
        return [at for at in range(start, end) if ids[at] not in SETTINGS.no_text_ids]

    prompt = text_between(0, one.prompt_length)
    image = [at for at in range(one.prompt_length) if ids[at] == IDS.image_pad]
    attention = model.model.language_model.layers[-1].self_attn
    head_dim, num_heads = 16, 2
    weights = torch.zeros(len(image), dtype=states.dtype)
    for head in range(num_heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        for p in prompt:
            q = attention.q_proj.weight[rows] @ states[p] + attention.q_proj.bias[rows]
            logits = [
                q @ (attention.k_proj.weight[rows] @ states[i] + attention.k_proj.bias[rows]) / math.sqrt(head_dim)
                for i in image
            ]
            weights += torch.stack(logits).softmax(0) / (num_heads * len(prompt))
    user = (sum(w * states[i] for w, i in zip(weights, image, strict=True)) + states[prompt].mean(0)) / 2

    selected: list[Tensor] = []
    text_from = one.prompt_length
    for block, features in zip(one.blocks, _features(model, one.helpers), strict=True):
        parts = [user]
        if text := text_between(text_from, block.first_pad - 1):
            parts.append(states[text].mean(0))
        if selected:
            parts.append(selected[-1].mean(0))
        query = sum(parts) / len(parts)
        cosine = (features @ query) / (features.norm(dim=-1) * query.norm())
        mass = (cosine.exp() / cosine.exp().sum()).tolist()
        order = sorted(range(len(mass)), key=lambda index: -mass[index])
        needed = next(
            n for n in range(1, len(mass) + 1) if sum(sorted(mass, reverse=True)[:n]) >= 0.9 or n == len(mass)
        )
        selected.append(features[order[: min(needed, latent_size)]])
        text_from = block.end + 1
    return selected


THREE_BLOCKS = [Said(4, 8, (3, 4)), Said(0, 8, (2, 2)), Said(3, 8, (5, 3))]


def test_targets_are_those_of_the_published_steps() -> None:
    """Of blocks with 12, 4 and 15 candidates: K* is 8, 4 (0.9 of the mass needs them all) and 8."""
    model, one = tiny_model(), sample(THREE_BLOCKS, images=[(2, 3), (1, 4)])
    found = targets(model, batch_of(one), SETTINGS)
    expected = _by_hand(model, one)
    assert [len(block) for block in expected] == [8, 4, 8]
    torch.testing.assert_close(found.vectors_SH, torch.cat(expected), rtol=TOLERANCE, atol=TOLERANCE)
    first, second, third = (block.first_pad for block in one.blocks)
    assert found.column_S.tolist() == [
        *range(first, first + 8),
        *range(second, second + 4),  # the other four pads bear no target
        *range(third, third + 8),
    ]
    assert found.row_S.tolist() == [0] * 20


def test_nothing_after_the_last_block_begins_is_computed() -> None:
    """In a batch of samples of which one has no block, and one its last block before the other's."""
    model, samples = tiny_model(), mixed_samples()
    lengths = []
    model.model.language_model.layers[0].register_forward_hook(lambda _, args, __: lengths.append(args[0].shape[1]))
    targets(model, batch_of(*samples), SETTINGS)
    assert lengths == [max(samples[1].blocks[-1].first_pad, samples[2].blocks[-1].first_pad)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_no_target(attention: str) -> None:
    model = tiny_model(torch.float32, attention)
    samples = mixed_samples()
    alone = [targets(model, batch_of(one), SETTINGS) for one in samples]
    together = targets(model, batch_of(*samples), SETTINGS)
    assert together.chosen == [one.chosen[0] for one in alone]
    assert together.row_S.tolist() == [row for row, one in enumerate(alone) for _ in one.row_S]
    assert together.column_S.tolist() == [column for one in alone for column in one.column_S.tolist()]
    torch.testing.assert_close(together.vectors_SH, torch.cat([one.vectors_SH for one in alone]), rtol=1e-5, atol=1e-5)


def test_a_block_of_fewer_pads_than_chosen_takes_the_first() -> None:
    model, one = tiny_model(), sample([Said(4, 3, (3, 4))])
    found = targets(model, batch_of(one), SETTINGS)
    assert len(found.chosen[0][0]) == 8
    torch.testing.assert_close(found.vectors_SH, _by_hand(model, one)[0][:3], rtol=TOLERANCE, atol=TOLERANCE)


def test_without_images_the_user_is_the_mean_of_the_token_embeddings() -> None:
    """Of all that stands before the header, ``<|im_end|>`` included."""
    model, one = tiny_model(), sample([Said(2, 4)], images=[])
    found = targets(model, batch_of(one), SETTINGS)
    embedded = model.get_input_embeddings().weight[one.input_ids[: one.prompt_length]]
    torch.testing.assert_close(found.users_BH[0], embedded.mean(0), rtol=TOLERANCE, atol=TOLERANCE)


def test_without_a_prompt_the_user_is_half_embeddings_half_grouped_features() -> None:
    """In a batch, so that the images of the sample before are not taken for its own. Fewer than eight features are
    repeated to eight, so that the first two of six weigh 2/8."""
    model, one = tiny_model(), sample([Said(2, 4)], images=[(2, 3)], num_asked=0, seed=8)
    found = targets(model, batch_of(sample([Said(1, 2)], images=[(2, 2), (1, 2)]), one), SETTINGS)
    with torch.no_grad():
        features = _features(model, one.images)[0]
        embedded = model.get_input_embeddings().weight[one.input_ids[: one.prompt_length]]
    expected = (embedded.mean(0) + features[[0, 1, 2, 3, 4, 5, 0, 1]].mean(0)) / 2
    torch.testing.assert_close(found.users_BH[1], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_teacher_sees_raw_pads() -> None:
    """The pads' embedding counts for the query of the second block, which has text after pads, not of the first."""
    model, batch = tiny_model(), batch_of(sample([Said(3, 4), Said(3, 4)]))
    before = targets(model, batch, SETTINGS).blocks[0]
    with torch.no_grad():
        model.get_input_embeddings().weight[IDS.latent_pad] += 1.0
    after = targets(model, batch, SETTINGS).blocks[0]
    assert torch.equal(before[0].query_H, after[0].query_H)
    assert not torch.allclose(before[1].query_H, after[1].query_H)


def test_the_helper_image_of_a_block_counts_for_the_next_query_only() -> None:
    model, one = tiny_model(), sample([Said(3, 8), Said(3, 8), Said(3, 8)])
    values = one.helpers.values_PX.clone()
    values[16:32] += 1.0  # the second helper image: 2 x 2 visual tokens of 4 patches each
    other = replace(one, helpers=replace(one.helpers, values_PX=values))
    first, second, third = zip(*(targets(model, batch_of(it), SETTINGS).blocks[0] for it in (one, other)), strict=True)
    assert torch.equal(first[0].query_H, first[1].query_H)
    assert torch.equal(second[0].query_H, second[1].query_H)
    assert not torch.allclose(third[0].query_H, third[1].query_H)


def test_ordered_selection_takes_the_cells_of_the_data_in_their_order() -> None:
    settings = replace(SETTINGS, selection="ordered", latent_size=3)
    said = [Said(2, 4, (2, 4), cells=(5, 0, 7, 1)), Said(2, 2, (1, 2), cells=(1,))]
    model, one = tiny_model(), sample(said)
    found = targets(model, batch_of(one), settings)
    first, second = _features(model, one.helpers)
    expected = torch.cat([first[[5, 0, 7]], second[[1]]])  # at most K
    torch.testing.assert_close(found.vectors_SH, expected, rtol=TOLERANCE, atol=TOLERANCE)
    at, then = (block.first_pad for block in one.blocks)
    assert found.column_S.tolist() == [at, at + 1, at + 2, then]
    assert found.chosen == [[[5, 0, 7], [1]]]


def test_ordered_selection_needs_cells() -> None:
    with pytest.raises(ValueError, match="target_cells"):
        targets(tiny_model(), batch_of(sample([Said(2, 4)])), replace(SETTINGS, selection="ordered"))


def test_scaled_targets_have_the_norm_of_latents_and_their_direction() -> None:
    """A latent is normed, so that with weights w its norm is that of w where its components are of one size."""
    model, batch = tiny_model(), batch_of(sample([Said(2, 4)]))
    plain = targets(model, batch, SETTINGS).vectors_SH
    scaled = targets(model, batch, replace(SETTINGS, is_scaled=True)).vectors_SH
    norm = model.model.language_model.norm.weight.square().sum().sqrt()
    torch.testing.assert_close(scaled, plain / plain.square().sum(-1, keepdim=True).sqrt() * norm)


def test_a_batch_without_blocks_has_no_targets() -> None:
    found = targets(tiny_model(), batch_of(sample([]), sample([], images=[])), SETTINGS)
    assert isinstance(found, Targets)
    assert found.vectors_SH.shape == (0, 32)
    assert len(found.row_S) == len(found.column_S) == 0
    assert found.chosen == [[], []]


def test_the_average_moves_as_its_formula_says() -> None:
    """xi <- 0.75 xi + 0.25 theta, with theta = xi + 1: xi + 1/4 after one update, xi + 7/16 after two."""
    student = tiny_model()
    teacher = Teacher(student, SETTINGS)
    first = {name: parameter.clone() for name, parameter in teacher.model.named_parameters()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    for moved in (1 / 4, 7 / 16):
        teacher.update(student, decay=0.75)
        for name, parameter in teacher.model.named_parameters():
            torch.testing.assert_close(parameter, first[name] + moved)


def test_a_decay_of_one_leaves_the_teacher_as_it_is() -> None:
    student = tiny_model()
    teacher = Teacher(student, SETTINGS)
    first = [parameter.clone() for parameter in teacher.model.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    teacher.update(student, decay=1.0)
    assert all(torch.equal(*pair) for pair in zip(first, teacher.model.parameters(), strict=True))


def test_training_the_student_changes_nothing_of_a_frozen_teacher() -> None:
    student, batch = tiny_model(), batch_of(*mixed_samples())
    student.train()
    teacher = Teacher(student, SETTINGS)
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    before = teacher.targets(batch).vectors_SH
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(-0.5)
    assert torch.equal(teacher.targets(batch).vectors_SH, before)
    assert not before.requires_grad
    assert not torch.allclose(Teacher(student, SETTINGS).targets(batch).vectors_SH, before)
