"""Named recipes. Each value stands with its reason or source; a recipe is data, and nothing here runs.

``maze_tiny`` makes the checkpoint that the repository ships. Its schedule answers three observations of a first trial:
the tower learns to see from direct answers far sooner than from latents; stage 1 alone is useless in free running,
because hidden states and visual features differ in norm; and every restart of the learning rate costs minutes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A Qwen2.5-VL small enough for one CPU core: about 1.04 million parameters."""

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
class Recipe:
    """A training run, complete: with the seed it decides every batch."""

    name: str
    model: ModelShape = field(default_factory=ModelShape)
    latent_size: int = 8  # K of the released ILVR settings
    latent_exit: Literal["fixed", "learned"] = "fixed"  # with no loss on pads, `learned` blocks collapse to 0-1 latents
    # Optimizer steps of each phase: direct answers, stage 1 (aligned latents), stage 2 (self-fed latents).
    direct_steps: int
    stage1_steps: int
    stage2_steps: int
    batch_size: int = 32
    # Of the direct steps the first see small grids only: they cost half and teach to read a path off the features.
    first_steps: int
    first_size_weights: Mapping[int, float]
    # Share of the batches by grid size afterwards: big grids are hard and 3x3 has fewer than 3,000 to learn.
    size_weights: Mapping[int, float]
    # Share of stage-1 and stage-2 batches answered without a block, so that turning latents off stays a fair ablation.
    direct_share: float
    learning_rate: float
    warmup_steps: int
    decay_share: float  # the rate falls linearly to 0 over this last share of all steps; one schedule, no restart
    adam_betas: tuple[float, float] = (0.9, 0.98)  # 0.98: gradients of 32 mazes are noisy, 0.999 forgets too slowly
    weight_decay: float = 0.02
    max_grad_norm: float = 1.0  # released ILVR settings
    cell_weight: float = 1.0  # of the losses on each cell, through all phases; not part of ILVR
    alignment_weight: float = 1.0  # L = CE + 1.0 L_sim, released ILVR settings
    alignment_noise: float = 0.01  # std added to each target, released ILVR settings
    selection_top_p: float = 0.9  # released ILVR settings; never binds, as published


def maze_tiny() -> Recipe:
    """The embedded default checkpoint: mazes of 3x3 to 6x6."""
    return Recipe(
        name="maze_tiny",
        first_steps=500,
        first_size_weights={3: 0.5, 4: 0.5},
        direct_steps=1400,
        stage1_steps=100,
        stage2_steps=1100,
        size_weights={3: 0.1, 4: 0.2, 5: 0.3, 6: 0.4},
        direct_share=0.1,
        learning_rate=2e-3,
        warmup_steps=50,
        decay_share=0.45,
    )


RECIPES = {"maze_tiny": maze_tiny}
