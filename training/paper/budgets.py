"""How many steps the compared runs take. Small enough that all cells of a task are made in hours of one core."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from training.configs import GridRecipe, PhaseKind, maze_tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Steps that cells share, and that each then takes by itself.

    base: all but the phases. trunk_steps: of direct answers, shared. branch_steps: of each method. aligned_steps: of
    stage 1 in methods that go on after it. sampled_steps: of sampled latents while the share of targets falls.
    alignment: weight of L_sim in these two with path selection. last: kind of phase for the rest, and its weight.
    """

    base: GridRecipe
    trunk_steps: int
    branch_steps: int
    aligned_steps: int
    sampled_steps: int
    alignment: float = 5.0
    last: PhaseKind
    last_alignment: float


def _base(task: str, first_steps: int, decay_steps: int) -> GridRecipe:
    """``maze_tiny`` without what the methods differ in. Batches never skip the block: here ``off`` is an ablation."""
    return replace(
        maze_tiny(),
        name=task,
        task_weights={task: 1.0},
        phases=(),
        first_steps=first_steps,
        decay_steps=decay_steps,
        direct_share=0.0,
        selection="published",
        are_targets_scaled=False,
    )


BUDGETS: Mapping[str, Budget] = {
    "maze": Budget(
        # About a third of the steps of ``maze_tiny``, with the same phases.
        base=_base("maze", first_steps=150, decay_steps=800),
        trunk_steps=450,
        branch_steps=550,
        aligned_steps=80,
        sampled_steps=170,
        last="stage2",
        last_alignment=1.0,
    ),
    "trail": Budget(
        base=_base("trail", first_steps=80, decay_steps=300),
        trunk_steps=150,
        branch_steps=500,
        aligned_steps=130,
        sampled_steps=220,
        last="sampled",
        last_alignment=5.0,
    ),
}
