"""The runs that are compared. A cell is a recipe and a seed; runs of one task and seed share their first steps.

Equal budget: all cells of a task take the same number of optimizer steps, of the same batches up to the fork, under the
same learning-rate curve. Seconds differ a little, since a step with latents costs more, and are in each result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from training.configs import GridRecipe, Phase
from training.paper.budgets import BUDGETS, Budget

SEEDS = (0, 1, 2)
LATENT_SIZES = (0, 1, 2, 4)


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: ``name`` is that of its result file."""

    name: str
    recipe: GridRecipe
    seed: int
    fork_step: int

    @property
    def trunk(self) -> str:
        """Cells of the same trunk are one run up to ``fork_step``."""
        (task,) = self.recipe.task_weights
        return f"{task}-trunk-seed{self.seed}"


def cells(tasks: Sequence[str] = ("maze", "trail")) -> list[Cell]:
    """All cells, in the order in which they are best made: whole rows of the table first."""
    found = []
    for task in tasks:
        budget = BUDGETS[task]
        found += [_cell(task, method, seed, recipe) for seed in SEEDS for method, recipe in _methods(budget).items()]
        found.append(_cell(task, "released", 0, replace(_methods(budget)["stage12"], ema_decay=None)))
        ordered = _methods(budget)["ordered"]
        for size in LATENT_SIZES:
            found.append(_cell(task, f"ordered-k{size}", 0, replace(ordered, latent_size=size)))
    return found


def _cell(task: str, method: str, seed: int, recipe: GridRecipe) -> Cell:
    name = f"{task}-{method}-seed{seed}"
    return Cell(name, replace(recipe, name=name), seed, BUDGETS[task].trunk_steps)


def _methods(budget: Budget) -> Mapping[str, GridRecipe]:
    """The five methods. ``stage1`` and ``stage12`` are the paper's: its selection, and a teacher that follows by EMA."""
    base, rest = budget.base, budget.branch_steps
    aligned, sampled = budget.aligned_steps, budget.sampled_steps
    trunk = Phase(kind="direct", steps=budget.trunk_steps)
    stage1 = Phase(kind="stage1", steps=aligned, alignment=1.0)

    def with_phases(*phases: Phase) -> GridRecipe:
        recipe = replace(base, phases=(trunk, *phases))
        assert recipe.num_steps == budget.trunk_steps + rest
        return recipe

    return {
        "direct": with_phases(Phase(kind="direct", steps=rest)),
        "chain": with_phases(Phase(kind="chain", steps=rest)),
        "stage1": replace(with_phases(replace(stage1, steps=rest)), ema_decay=0.999),
        "stage12": replace(with_phases(stage1, Phase(kind="stage2", steps=rest - aligned)), ema_decay=0.999),
        "ordered": replace(
            with_phases(
                replace(stage1, alignment=budget.alignment),
                Phase(kind="sampled", steps=sampled, alignment=budget.alignment, target_shares=(0.7, 0.0)),
                Phase(kind="stage2", steps=rest - aligned - sampled),
            ),
            selection="ordered",
            are_targets_scaled=True,
        ),
    }
