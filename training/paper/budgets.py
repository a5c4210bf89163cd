"""How many steps the compared runs take. Small enough that all cells of a task are made in hours of one core."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.configs import GridRecipe, PhaseKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Steps that cells share, and that each then takes by itself.

    base: all but the phases. aligned_steps: of stage 1 in methods that go on after it. sampled_steps: of sampled
    latents while the share of targets falls. last: kind of phase for the rest, and the weight of L_sim in it.
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
    """The values of ``maze_tiny``, but that batches never skip the block: here ``off`` is an ablation, not a mode."""
    return GridRecipe(
        name=task,
        task_weights={task: 1.0},
        first_steps=first_steps,
        first_size_weights={3: 0.5, 4: 0.5},
        phases=(),
        size_weights={3: 0.1, 4: 0.2, 5: 0.3, 6: 0.4},
        direct_share=0.0,
        learning_rate=2e-3,
        muon_rate=0.02,
        warmup_steps=50,
        decay_steps=decay_steps,
    )


BUDGETS: Mapping[str, Budget] = {
    "maze": Budget(
        # A third of the steps of ``maze_tiny``, in its proportions.
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
