"""The comparison is fair: equal steps, shared beginnings, every method and seed that is promised."""

from dataclasses import replace
from itertools import groupby

from training.grids.state import identity
from training.paper.cells import Cell, cells


def task_of(cell: Cell) -> str:
    (task,) = cell.recipe.task_weights
    return task


def test_all_cells_of_a_task_have_equal_steps_rates_and_batches() -> None:
    for task, group in groupby(cells(), task_of):
        budgets = {
            (c.recipe.num_steps, c.recipe.decay_steps, c.recipe.batch_size, c.recipe.learning_rate, c.recipe.muon_rate)
            for c in group
        }
        assert len(budgets) == 1, task


def test_cells_of_a_trunk_begin_alike() -> None:
    for cell in cells():
        first = cell.recipe.phases[0]
        assert (first.kind, first.steps) == ("direct", cell.fork_step)
        assert cell.recipe.direct_share == 0
    beginnings = {(cell.trunk, identity(cell.recipe, cell.seed, cell.fork_step)) for cell in cells()}
    assert len(beginnings) == len({cell.trunk for cell in cells()}) == 6


def test_every_method_has_three_seeds_and_every_k_one() -> None:
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names)
    for task in ("maze", "trail"):
        for method in ("direct", "chain", "stage1", "stage12", "ordered"):
            assert {f"{task}-{method}-seed{seed}" for seed in (0, 1, 2)} <= set(names)
    assert {f"trail-control-seed{seed}" for seed in (0, 1, 2)} <= set(names)
    assert "maze-released-seed0" in names
    assert {f"maze-ordered-k{k}-seed0" for k in (0, 1, 2, 4)} <= set(names)


def test_the_papers_methods_select_as_published_with_a_moving_teacher() -> None:
    by_name = {cell.name: cell.recipe for cell in cells()}
    for task in ("maze", "trail"):
        for method in ("stage1", "stage12"):
            recipe = by_name[f"{task}-{method}-seed0"]
            assert (recipe.selection, recipe.ema_decay, recipe.are_targets_scaled) == ("published", 0.999, False)
            assert [phase.alignment for phase in recipe.phases if phase.kind == "stage1"] == [1.0]
        last = by_name[f"{task}-stage12-seed0"].phases[-1]
        assert (last.kind, last.alignment) == ("stage2", 0)
    assert replace(by_name["maze-released-seed0"], name="", ema_decay=0.999) == replace(
        by_name["maze-stage12-seed0"], name=""
    )


def test_the_control_is_path_selection_but_for_the_selection() -> None:
    by_name = {cell.name: cell.recipe for cell in cells()}
    ordered, control = by_name["trail-ordered-seed0"], by_name["trail-control-seed0"]
    assert (ordered.selection, control.selection) == ("ordered", "published")
    assert replace(control, name="", selection="ordered") == replace(ordered, name="")
