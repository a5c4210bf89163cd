"""The latent step: what a decode step does besides the language model, and the rule that ends a block.

``reference`` is the definition, in plain vectorised PyTorch: no loop, no host sync, no data-dependent shape. It is also
what runs on a CPU.
"""

from model_runner.kernels.latent_step.reference import LatentState, commit, decide, inject, is_inner_pad, next_phase

__all__ = ["LatentState", "commit", "decide", "inject", "is_inner_pad", "next_phase"]
