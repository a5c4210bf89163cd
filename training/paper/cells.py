"""The runs that are compared. A cell is a recipe and a seed; runs of one task and seed share their first steps.

Equal budget: all cells of a task take the same number of optimizer steps, of the same batches up to the fork, under the
same learning-rate curve. A step with latents costs more seconds than one without: they are in each result.
"""

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


def cells() -> list[Cell]:
    """All cells, in the order in which they are best made: whole rows of the table, the most telling first."""
    trails, mazes = _methods(BUDGETS["trail"]), _methods(BUDGETS["maze"])
    del mazes["control"]  # for lack of time: on mazes only the whole of path selection is compared
    rows = [("trail", method, recipe) for method, recipe in trails.items()]
    rows += [("maze", method, recipe) for method, recipe in mazes.items()]
    found = [_cell(task, method, seed, recipe) for task, method, recipe in rows for seed in SEEDS]
    found.append(_cell("maze", "released", 0, replace(mazes["stage12"], ema_decay=None)))
    for size in LATENT_SIZES:
        found.append(_cell("maze", f"ordered-k{size}", 0, replace(mazes["ordered"], latent_size=size)))
    return found


def _cell(task: str, method: str, seed: int, recipe: GridRecipe) -> Cell:
    name = f"{task}-{method}-seed{seed}"
    return Cell(name, replace(recipe, name=name), seed, BUDGETS[task].trunk_steps)


def _methods(budget: Budget) -> dict[str, GridRecipe]:
    """``stage1`` and ``stage12`` are the paper's: its selection, and a teacher that follows by EMA.

    ``ordered``: targets in path order, then sampled latents, then what the budget says, the alignment kept to the end.
    ``control``: the schedule, weights, scale and frozen teacher of ``ordered``, but the published selection, so that
    what the order of the targets does can be told from what the rest does.
    """
    rest, aligned, falling = budget.branch_steps, budget.aligned_steps, budget.sampled_steps
    stage1 = Phase(kind="stage1", steps=aligned, alignment=1.0)
    strong = replace(stage1, alignment=budget.alignment)
    sampled = Phase(kind="sampled", steps=falling, alignment=budget.alignment, target_shares=(0.7, 0.0))
    last = Phase(kind=budget.last, steps=rest - aligned - falling, alignment=budget.last_alignment)
    departing = replace(budget.base, selection="ordered", are_targets_scaled=True)
    published = replace(budget.base, ema_decay=0.999)

    def after_trunk(recipe: GridRecipe, *phases: Phase) -> GridRecipe:
        return replace(recipe, phases=(Phase(kind="direct", steps=budget.trunk_steps), *phases))

    return {
        "direct": after_trunk(budget.base, Phase(kind="direct", steps=rest)),
        "ordered": after_trunk(departing, strong, sampled, last),
        "stage12": after_trunk(published, stage1, Phase(kind="stage2", steps=rest - aligned)),
        "control": after_trunk(replace(departing, selection="published"), strong, sampled, last),
        "chain": after_trunk(budget.base, Phase(kind="chain", steps=rest)),
        "stage1": after_trunk(published, replace(stage1, steps=rest)),
    }
