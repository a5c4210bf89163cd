"""The schedule: each phase learns, the rate is one curve, a run is reproducible and can be gone on with."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.errors import BadSettings
from contracts.mazes import SIZES
from tests.training.conftest import Setup
from training.configs import GridRecipe, Phase, maze_tiny
from training.grids.state import GridRun, learning_rate_factor, make_optimizers
from training.grids.train import FORMS, Progress, batch_loss, phase_at, scaled, train

ALIGNED = ("stage1", "sampled")


@pytest.mark.parametrize("kind", ["direct", "chain", "stage1", "sampled", "stage2"])
@pytest.mark.parametrize("selection", ["published", "ordered"])
def test_a_few_steps_on_one_batch_lower_its_loss(setup: Setup, kind: str, selection: str) -> None:
    recipe = replace(setup.recipe, selection=selection, are_targets_scaled=selection == "ordered")
    run = copy.copy(setup.run)
    run.recipe, run.model = recipe, copy.deepcopy(setup.model)
    run.classifiers = copy.deepcopy(setup.run.classifiers)
    run.teacher = run.make_teacher()
    optimizers = make_optimizers(run.model, run.classifiers, recipe)
    grid = setup.batch(3, 4, FORMS[kind])
    phase = Phase(kind=kind, steps=1, alignment=float(kind in ALIGNED))
    values = []
    for _ in range(4):
        torch.manual_seed(0)
        loss = batch_loss(run, grid, phase, target_share=0.5)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.85 * values[0]


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    recipe = replace(maze_tiny(), phases=(Phase(kind="direct", steps=100),), warmup_steps=10, decay_steps=50)
    factors = [learning_rate_factor(recipe, step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:50] == [1.0] * 41
    assert factors[75] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.02)


def test_phases_follow_each_other() -> None:
    recipe = replace(maze_tiny(), phases=(Phase(kind="direct", steps=2), Phase(kind="sampled", steps=3)))
    at = [phase_at(recipe, step) for step in range(5)]
    assert [(phase.kind, done) for phase, done in at] == [
        ("direct", 0.0),
        ("direct", 1.0),
        ("sampled", 0.0),
        ("sampled", 0.5),
        ("sampled", 1.0),
    ]
    with pytest.raises(ValueError, match="no step"):
        phase_at(recipe, 5)


def tiny() -> GridRecipe:
    phases = (
        Phase(kind="direct", steps=3),
        Phase(kind="stage1", steps=2, alignment=1.0),
        Phase(kind="sampled", steps=2, alignment=1.0, target_shares=(0.7, 0.0)),
        Phase(kind="stage2", steps=2),
    )
    weights = {"maze": 1.0, "trail": 1.0}
    return replace(
        maze_tiny(), task_weights=weights, phases=phases, batch_size=2, first_steps=2, ema_decay=0.9, decay_steps=2
    )


def states_equal(one: GridRun, other: GridRun) -> bool:
    first, second = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seed_gives_the_same_run_and_a_stopped_one_goes_on_to_it(tmp_path: Path) -> None:
    seen: list[list[Progress]] = [[], [], []]
    whole = train(tiny(), 5, seen[0].append, num_watched=2)
    file = tmp_path / "state.pt"
    train(tiny(), 5, seen[1].append, state_file=file, until_step=6, num_watched=2)
    resumed = train(tiny(), 5, seen[1].append, state_file=file, num_watched=2)
    other = train(tiny(), 6, seen[2].append, num_watched=2)
    losses = [[progress.loss for progress in one] for one in seen]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert states_equal(whole, resumed)
    assert not states_equal(whole, other)
    assert [progress.phase for progress in seen[0]] == ["direct"] * 3 + ["stage1"] * 2 + ["sampled"] * 2 + [
        "stage2"
    ] * 2
    assert {name: set(scores) for name, scores in seen[0][-1].scores.items()} == {
        "maze": set(SIZES),
        "trail": set(SIZES),
    }


def test_runs_of_the_same_first_steps_can_share_them(tmp_path: Path) -> None:
    trunk, losses = tmp_path / "trunk.pt", ([], [])
    train(tiny(), 5, lambda progress: None, state_file=trunk, until_step=3)
    longer = replace(tiny(), phases=(*tiny().phases[:1], Phase(kind="direct", steps=4)))
    train(longer, 5, lambda progress: losses[0].append(progress.loss), start_from=trunk, num_watched=2)
    train(longer, 5, lambda progress: losses[1].append(progress.loss), num_watched=2)
    assert losses[0] == losses[1][3:]


def test_a_frozen_teacher_stays_and_a_moving_one_follows() -> None:
    frozen = train(replace(tiny(), ema_decay=None), 5, lambda progress: None, num_watched=2)
    moving = train(tiny(), 5, lambda progress: None, num_watched=2)
    assert frozen.teacher is not None
    assert moving.teacher is not None
    name = "model.language_model.norm.weight"
    kept, moved, student = (
        dict(model.named_parameters())[name] for model in (frozen.teacher.model, moving.teacher.model, moving.model)
    )
    assert not torch.equal(kept, moved)
    assert (moved - student).norm() < (kept - student).norm()


def test_muon_takes_the_matrices_but_the_embedding_and_each_parameter_has_one_optimizer(setup: Setup) -> None:
    adamw, muon = make_optimizers(setup.model, setup.run.classifiers, setup.recipe)
    of = [[id(p) for group in each.param_groups for p in group["params"]] for each in (adamw, muon)]
    assert sorted(of[0] + of[1]) == sorted(map(id, setup.run.parameters))
    named = dict(setup.model.named_parameters())
    assert id(named["model.language_model.layers.0.self_attn.q_proj.weight"]) in of[1]
    assert id(named["model.visual.blocks.0.mlp.down_proj.weight"]) in of[1]
    assert id(named["model.language_model.embed_tokens.weight"]) in of[0]
    assert [group["full_lr"] for group in muon.param_groups] == [0.02]


def test_scaled_keeps_every_phase() -> None:
    recipe = scaled(maze_tiny(), 0.0001)
    assert [phase.steps for phase in recipe.phases] == [1] * len(maze_tiny().phases)


@pytest.mark.parametrize(
    ("recipe", "seed"),
    [(tiny(), 6), (replace(tiny(), batch_size=3), 5), (replace(tiny(), weight_decay=0.5), 5)],
    ids=["seed", "batch size", "weight decay"],
)
def test_a_stopped_run_is_not_gone_on_with_as_another(recipe: GridRecipe, seed: int, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    train(tiny(), 5, lambda progress: None, state_file=file, until_step=2)
    with pytest.raises(BadSettings, match="another recipe or seed"):
        train(recipe, seed, lambda progress: None, state_file=file)


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    file.write_bytes(b"nothing")
    with pytest.raises(BadSettings, match=r"state\.pt is no state"):
        train(tiny(), 5, lambda progress: None, state_file=file)
