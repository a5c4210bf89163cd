"""The two stages from batch to losses: against the stock model's own loss, and the same in batches and alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.naive_training import naive_stage1_loss, naive_stage2_loss
from tests.training.tiny import (
    IDS,
    SETTINGS,
    Said,
    assert_close,
    batch_of,
    gradients,
    mixed_samples,
    sample,
    tiny_model,
)
from training.batch import Encoded
from training.objective import Losses, Objective, Stage, Weights
from training.teacher import Targets, Teacher, targets

WITHOUT_NOISE = Weights(noise_std=0.0)
# Losses are computed in float32 also for a float64 model: a rounding of logits, which differ by 1e-15, is 6e-8.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}


def test_stage1_is_the_stock_models_loss_on_filled_pads_and_the_mean_cosine() -> None:
    """The first K* pads become S, the others keep the pad's embedding."""
    model, one = tiny_model(), sample([Said(3, 6, (2, 2)), Said(2, 8, (3, 3))])
    batch = batch_of(one)
    selected = targets(model, batch, SETTINGS)
    assert [len(chosen) for chosen in selected.chosen[0]] == [4, 8]
    losses = Objective(model, Weights(cross_entropy=2.0, alignment=3.0, noise_std=0.0))(batch, "stage1", selected)

    embedded = model.get_input_embeddings()(one.input_ids)
    features = model.model.visual(one.images.values_PX.double(), grid_thw=one.images.grids).pooler_output
    rows = list(embedded)
    for position, feature in zip((one.input_ids == IDS.image_pad).nonzero()[:, 0].tolist(), features, strict=True):
        rows[position] = feature
    first, second = one.blocks
    filled = [*range(first.first_pad, first.first_pad + 4), *range(second.first_pad, second.first_pad + 8)]
    for position, vector in zip(filled, selected.vectors_SH, strict=True):
        rows[position] = vector
    stock = model(
        inputs_embeds=torch.stack(rows)[None],
        position_ids=one.positions_3T[:, None],
        labels=one.labels[None],
        output_hidden_states=True,
        use_cache=False,
    )
    before = stock.hidden_states[-1][0, [position - 1 for position in filled]]
    similarity = 1 - functional.cosine_similarity(before, selected.vectors_SH).mean()
    assert losses.cross_entropy.item() == pytest.approx(stock.loss.item(), rel=1e-6)
    assert losses.similarity is not None
    assert losses.similarity.item() == pytest.approx(similarity.item(), rel=1e-6)
    assert losses.total.item() == pytest.approx(2 * stock.loss.item() + 3 * similarity.item(), rel=1e-6)


def test_both_stages_give_the_losses_and_gradients_of_the_naive_forms() -> None:
    model, batch = tiny_model(), batch_of(sample([Said(3, 8, (2, 3)), Said(2, 8, (3, 3))]))
    teacher = Teacher(model, SETTINGS)
    ours = Objective(model, WITHOUT_NOISE)
    selected = teacher.targets(batch)
    naive, naive_selected = naive_stage1_loss(model, teacher.model, batch, SETTINGS)
    assert selected.chosen == naive_selected.chosen
    for loss, expected in (
        (ours(batch, "stage1", selected).total[0], naive),
        (ours(batch, "stage2").total[0], naive_stage2_loss(model, batch)),
    ):
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert_close(gradients(model, loss), gradients(model, expected), rtol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_padding_changes_no_loss_and_gradients_are_their_mean(stage: Stage, dtype: torch.dtype) -> None:
    """Samples of other lengths with 0, 1 and 3 blocks, other numbers of pads, and 1, 0 and 2 images."""
    model, samples = tiny_model(dtype), mixed_samples()
    teacher = Teacher(tiny_model(dtype, seed=1), SETTINGS)
    objective = Objective(model, WITHOUT_NOISE)

    def losses_of(*chosen: Encoded) -> Losses:
        batch = batch_of(*chosen)
        return objective(batch, stage, teacher.targets(batch) if stage == "stage1" else None)

    together = losses_of(*samples)
    found = gradients(model, together.total.mean())
    expected: dict[str, Tensor] = {}
    for row, one in enumerate(samples):
        alone = losses_of(one)
        rtol = TOLERANCE[dtype]
        torch.testing.assert_close(together.total[row], alone.total[0], rtol=rtol, atol=0.0)
        torch.testing.assert_close(together.cross_entropy[row], alone.cross_entropy[0], rtol=rtol, atol=0.0)
        if alone.similarity is not None and together.similarity is not None:
            torch.testing.assert_close(together.similarity[row], alone.similarity[0], rtol=rtol, atol=0.0)
            assert (alone.similarity[0].item() > 0) == bool(one.blocks)
        for name, gradient in gradients(model, alone.total[0]).items():
            expected[name] = expected.get(name, 0) + gradient / len(samples)
    assert_close(found, expected, rtol=10 * TOLERANCE[dtype])


def test_recomputing_in_the_backward_pass_gives_the_same_gradients() -> None:
    model, batch = tiny_model(), batch_of(*mixed_samples())
    found = gradients(model, Objective(model, WITHOUT_NOISE, checkpointed=True)(batch, "stage2").total.mean())
    expected = gradients(model, Objective(model, WITHOUT_NOISE)(batch, "stage2").total.mean())
    assert_close(found, expected, rtol=1e-9)


def test_pads_embedding_has_no_part_in_stage2_and_targets_bear_no_gradient() -> None:
    model, batch = tiny_model(), batch_of(sample([Said(3, 4), Said(2, 4)]))
    with torch.no_grad():  # an untied head: a tied one gives every token's embedding a gradient
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    objective = Objective(model, WITHOUT_NOISE)
    selected = targets(model, batch, SETTINGS)
    vectors = selected.vectors_SH.clone().requires_grad_()
    for stage, given in (("stage1", Targets(vectors, selected.row_S, selected.column_S)), ("stage2", None)):
        found = gradients(model, objective(batch, stage, given).total.sum())["model.language_model.embed_tokens.weight"]
        assert not found[IDS.latent_pad].any()  # all pads are filled, here by four targets, there by states
        assert found[IDS.latent_start].any()


def test_stage2_with_targets_is_aligned_to_them() -> None:
    model, batch = tiny_model(), batch_of(*mixed_samples())
    selected = targets(model, batch, SETTINGS)
    losses = Objective(model, Weights(alignment=2.0, noise_std=0.0))(batch, "stage2", selected)
    plain = Objective(model, WITHOUT_NOISE)(batch, "stage2")
    assert torch.equal(losses.cross_entropy, plain.cross_entropy)
    before = plain.states_BTH[selected.row_S, selected.column_S - 1]
    cosine = functional.cosine_similarity(before, selected.vectors_SH)
    expected = [0.0, *(1 - cosine[selected.row_S == row].mean().item() for row in (1, 2))]
    torch.testing.assert_close(losses.similarity, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.total, plain.total + 2 * losses.similarity)
    assert plain.similarity is None


@pytest.mark.parametrize("stage", ["stage1", "sampled"])
def test_a_stage_that_feeds_targets_needs_them(stage: Stage) -> None:
    with pytest.raises(ValueError, match="targets"):
        Objective(tiny_model(), WITHOUT_NOISE)(batch_of(sample([Said(3, 4)])), stage)


@pytest.mark.parametrize("stage", ["stage1", "sampled", "stage2"])
def test_a_batch_without_blocks_has_the_plain_loss(stage: Stage) -> None:
    model, samples = tiny_model(), [sample([], seed=1), sample([], images=[], num_last=7, seed=2)]
    batch = batch_of(*samples)
    losses = Objective(model, Weights())(batch, stage, None if stage == "stage2" else targets(model, batch, SETTINGS))
    for row, one in enumerate(samples):
        pictures = one.images and {"pixel_values": one.images.values_PX.double(), "image_grid_thw": one.images.grids}
        stock = model(
            input_ids=one.input_ids[None],
            mm_token_type_ids=(one.input_ids[None] == IDS.image_pad).int(),
            labels=one.labels[None],
            use_cache=False,
            **(pictures or {}),
        )
        assert losses.total[row].item() == pytest.approx(stock.loss.item(), rel=1e-6)


def test_sampled_latents_are_all_targets_or_all_own() -> None:
    """At a share of 1 it is stage 1; at 0 the states are those of stage 2, and the loss is aligned too."""
    model, batch = tiny_model(), batch_of(*mixed_samples())
    # Every pad has a target, so that at a share of 1 no latent is the model's own.
    filled = batch.is_pad.nonzero()
    vectors = torch.randn(len(filled), 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = Targets(vectors, filled[:, 0], filled[:, 1])
    objective = Objective(model, WITHOUT_NOISE)
    with torch.no_grad():
        for share, stage in ((1.0, "stage1"), (0.0, "stage2")):
            sampled = objective(batch, "sampled", given, target_share=share)
            expected = objective(batch, stage, given)
            torch.testing.assert_close(sampled.states_BTH[batch.is_pad], expected.states_BTH[batch.is_pad])
            torch.testing.assert_close(sampled.total, expected.total)
