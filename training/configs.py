"""Named recipes of the grid tasks. Each value stands with its reason or source; a recipe is data: nothing here runs.

``maze_tiny`` makes the checkpoint that the repository ships. Its schedule answers what was seen on the way to it: the
tower learns to see from direct answers far sooner than from latents; latents whose targets are the path in its order
come to matter to the answer, those of the published selection did not; fed back right after stage 1 they go astray, so
own latents replace the targets by and by; and stage 2 without alignment forgets them within a hundred steps.
``training/PAPER.md`` has the measurements, and of what was seen once and not measured says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PhaseKind = Literal["direct", "chain", "stage1", "sampled", "stage2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A Qwen2.5-VL small enough for one CPU core: about 1.05 million parameters."""

    vocab_size: int = 384  # 256 bytes, 10 special tokens, 118 merges
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4  # of 32: the CPU attention kernel of vLLM takes multiples of 32
    intermediate_size: int = 256
    rope_theta: float = 10.0  # at the published 1e6 the row and column frequencies cannot tell neighbouring cells apart
    mrope_section: tuple[int, int, int] = (4, 6, 6)  # half a head: time, row, column
    max_position_embeddings: int = 4096
    tower_hidden_size: int = 64
    tower_depth: int = 4  # all with full attention: a maze is smaller than one window
    tower_num_heads: int = 2
    tower_intermediate_size: int = 128
    window_px: int = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Optimizer steps of one kind. ``alignment``: weight of L_sim, 0 in the stage 2 of ILVR.

    target_shares: of ``sampled``, the chance that a latent is its target: at the first step, falling linearly to the
    second value at the last.
    """

    kind: PhaseKind
    steps: int
    alignment: float = 0.0
    target_shares: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRecipe:
    """A training run, complete: with the seed it decides every batch."""

    name: str
    model: ModelShape = field(default_factory=ModelShape)
    task_weights: Mapping[str, float]
    latent_size: int = 8  # K of the released ILVR settings
    latent_exit: Literal["fixed", "learned"] = "fixed"  # with no loss on pads, `learned` blocks collapse to 0-1 latents
    phases: tuple[Phase, ...]
    batch_size: int = 32
    # The first steps see small grids only: they cost half and teach to read a path off the features.
    first_steps: int
    first_size_weights: Mapping[int, float]
    # Share of the batches by grid size afterwards: big grids are hard and 3x3 has fewer than 3,000 mazes to learn.
    size_weights: Mapping[int, float]
    # Share of the batches of phases with latents that are answered without a block, so that the model can do without.
    direct_share: float
    learning_rate: float
    # Rate of Muon (Jordan et al. 2024; torch.optim.Muon) for the matrices, which learns in half the steps of AdamW.
    muon_rate: float
    warmup_steps: int
    decay_steps: int  # the rate falls linearly to 0 over these last steps; one schedule, no restart
    adam_betas: tuple[float, float] = (0.9, 0.98)  # 0.98: gradients of 32 mazes are noisy, 0.999 forgets too slowly
    weight_decay: float = 0.02
    max_grad_norm: float = 1.0  # released ILVR settings
    cell_weight: float = 1.0  # of the losses on each cell, through all phases; not part of ILVR
    alignment_noise: float = 0.01  # std added to each target, released ILVR settings
    top_p: float = 0.9  # released ILVR settings; never binds, as published
    # ``published``: the features most similar to the query. ``ordered``: of the path's cells, in path order.
    selection: Literal["published", "ordered"] = "published"
    are_targets_scaled: bool = False  # to the norm of the model's own latents; a departure
    ema_decay: float | None = None  # None: a teacher frozen when stage 1 begins, as the released code in truth has

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


def maze_tiny() -> GridRecipe:
    """The embedded default checkpoint: mazes of 3x3 to 6x6."""
    return GridRecipe(
        name="maze_tiny",
        task_weights={"maze": 1.0},
        first_steps=300,
        first_size_weights={3: 0.5, 4: 0.5},
        phases=(
            Phase(kind="direct", steps=1400),
            Phase(kind="stage1", steps=150, alignment=5.0),
            Phase(kind="sampled", steps=400, alignment=5.0, target_shares=(0.7, 0.0)),
            Phase(kind="stage2", steps=1050, alignment=1.0),
        ),
        size_weights={3: 0.1, 4: 0.2, 5: 0.3, 6: 0.4},
        direct_share=0.05,
        learning_rate=2e-3,
        muon_rate=0.02,  # 0.04 diverges
        warmup_steps=50,
        decay_steps=2750,  # early: at a constant rate mazes stop improving after some hundred steps
        selection="ordered",
        are_targets_scaled=True,
    )


RECIPES = {"maze_tiny": maze_tiny}
