"""The schedule: each phase learns, the rate is one curve, a run is reproducible."""

import copy
from dataclasses import replace

import pytest
import torch

from contracts.mazes import SIZES
from tests.training.conftest import Setup
from training import maze_train
from training.configs import maze_tiny
from training.free_running import MAX_NEW_TOKENS, generate_ids
from training.maze_train import Phase, Progress, learning_rate_factor, make_optimizer, phase_loss, scaled, train


@pytest.mark.parametrize("phase", ["direct", "stage1", "stage2"])
def test_a_few_steps_on_one_batch_lower_its_loss(setup: Setup, phase: Phase) -> None:
    torch.manual_seed(0)
    model, teacher = copy.deepcopy(setup.model), copy.deepcopy(setup.model)
    losses, batch = setup.losses(model), setup.batch(3, 4)
    optimizer = make_optimizer(list(model.parameters()), setup.recipe)
    values = []
    for _ in range(4):
        loss = phase_loss(losses, batch, phase, teacher, setup.recipe)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_direct_answers_do_not_teach_against_start(setup: Setup) -> None:
    """The logit of START bears no gradient where a block would begin, and does everywhere else."""
    batch, logits = setup.batch(3, 2), []

    def keep(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        logits.append(output)

    losses = setup.losses(setup.model)
    with setup.model.lm_head.register_forward_hook(keep):
        losses.direct(batch, losses.features(batch)).backward()
    setup.model.zero_grad()
    gradients = logits[0].grad[:, :, setup.ids.latent_start]
    place = len(batch.thought_ids)
    assert torch.all(gradients[:, place] == 0)
    assert torch.all(gradients[:, :place] > 0)
    assert torch.all(gradients[:, place + 1] > 0)


def test_stage1_needs_a_teacher(setup: Setup) -> None:
    with pytest.raises(ValueError, match="teacher"):
        phase_loss(setup.losses(setup.model), setup.batch(3, 1), "stage1", None, setup.recipe)


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    recipe = replace(maze_tiny(), direct_steps=50, stage1_steps=10, stage2_steps=40, warmup_steps=10, decay_share=0.5)
    factors = [learning_rate_factor(recipe, step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:50] == [1.0] * 41
    assert factors[75] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.02)


def test_free_running_obeys_the_fixed_rule(setup: Setup) -> None:
    """A model that always wants START gets it only outside blocks, and each block has K pads and END."""
    ids, num_latents = setup.ids, setup.recipe.latent_size

    def want_start(_module: torch.nn.Module, _inputs: object, logits: torch.Tensor) -> None:
        logits[..., ids.latent_start] = 1e4

    mazes = setup.batch(3, 2).mazes
    with setup.model.lm_head.register_forward_hook(want_start):
        answers = generate_ids(setup.model, setup.batches, mazes, num_latents)
    block = [ids.latent_start, *[ids.latent_pad] * num_latents, ids.latent_end]
    assert answers == [(block * MAX_NEW_TOKENS)[:MAX_NEW_TOKENS]] * 2


def test_free_running_never_chooses_pad_or_end_outside_a_block(setup: Setup) -> None:
    def want_pad(_module: torch.nn.Module, _inputs: object, logits: torch.Tensor) -> None:
        logits[..., [setup.ids.latent_pad, setup.ids.latent_end]] = 1e4
        logits[..., setup.ids.latent_start] = -1e4

    mazes = setup.batch(3, 2).mazes
    with setup.model.lm_head.register_forward_hook(want_pad):
        answers = generate_ids(setup.model, setup.batches, mazes, setup.recipe.latent_size)
    assert not {setup.ids.latent_pad, setup.ids.latent_end} & {token for answer in answers for token in answer}


def test_latents_off_means_no_block_even_if_the_model_wants_one(setup: Setup) -> None:
    def want_start(_module: torch.nn.Module, _inputs: object, logits: torch.Tensor) -> None:
        logits[..., setup.ids.latent_start] = 1e4

    mazes = setup.batch(3, 2).mazes
    with setup.model.lm_head.register_forward_hook(want_start):
        answers = generate_ids(setup.model, setup.batches, mazes, setup.recipe.latent_size, latents="off")
    assert not {setup.ids.latent_start, setup.ids.latent_pad} & {token for answer in answers for token in answer}


def test_the_same_seed_gives_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maze_train, "WATCH_MAZES", 2)
    recipe = replace(scaled(maze_tiny(), 0.001), batch_size=2)
    seen: list[Progress] = []
    first, second = (train(recipe, 5, seen.append) for _ in range(2))
    half = len(seen) // 2
    assert [p.loss for p in seen[:half]] == [p.loss for p in seen[half:]]
    assert {p.phase for p in seen} == {"direct", "stage1", "stage2"}
    assert set(seen[-1].scores) == set(SIZES)
    one, other = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
