"""The latent step: what a decode step does besides the language model, and the rule that ends a block.

``reference`` is the definition, in plain vectorised PyTorch; ``host`` is the same for a CPU, ``kernel`` in Triton for a
GPU, one launch each.
"""

from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step import reference
from model_runner.kernels.latent_step.reference import LatentState, decide, is_inner_pad, next_phase

Implementation = Literal["reference", "host", "triton"]


class Inject(Protocol):
    def __call__(
        self,
        ids_R: Tensor,
        embeds_RD: Tensor,
        seq_lens_R: Tensor,
        block_table_RB: Tensor,
        slots_R: Tensor,
        state: LatentState,
        spec: LatentSpec,
    ) -> Tensor: ...


class Commit(Protocol):
    def __call__(
        self,
        hidden_TD: Tensor,
        phase_T: Tensor,
        slots_T: Tensor,
        state: LatentState,
        kept_T: Tensor | None = None,
        last_R: Tensor | None = None,
    ) -> None: ...


class Decide(Protocol):
    def __call__(self, chosen_R: Tensor, phase_R: Tensor, spec: LatentSpec) -> Tensor: ...


class MaskLogits(Protocol):
    def __call__(self, logits_RV: Tensor, tokens_N: Tensor, rows_M: Tensor | None = None) -> None: ...


class LatentStep(NamedTuple):
    inject: Inject
    commit: Commit
    decide: Decide
    mask_logits: MaskLogits


def latent_step(implementation: Implementation) -> LatentStep:
    """There is no fallback: ``triton`` raises ``ImportError`` where triton is not installed, and ``host`` numba."""
    if implementation == "host":
        from model_runner.kernels.latent_step import host  # compiles, for a second

        return LatentStep(host.inject, host.commit, host.decide, host.mask_logits)
    if implementation == "triton":
        from model_runner.kernels.latent_step import kernel

        return LatentStep(kernel.inject, kernel.commit, reference.decide, reference.mask_logits)
    return LatentStep(reference.inject, reference.commit, reference.decide, reference.mask_logits)


__all__ = ["Implementation", "LatentState", "LatentStep", "decide", "is_inner_pad", "latent_step", "next_phase"]
