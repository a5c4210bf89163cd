"""The latent step in plain PyTorch: the definition. ``host`` does the same on a CPU, faster.

The phase of a position is 0 outside a latent block, 1 at START and 1+n at the n-th pad: a function of the token ids.
State has one row per KV block, so that a request needs no identity here: the row of position p of request r is
``block_table[r, p // block_size]``, and it tells of the last position committed in that block.

Everything here is vectorised, of static shape and free of host syncs, and writes to buffers that live as long as the
engine; only the small intermediate results of PyTorch are allocated. On a CPU it is the number of operations that
costs, not what each does to a few numbers.

Shape letters: R requests, T tokens of this step, D hidden size, B KV blocks, V vocabulary, N tokens that are masked in
M rows.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step.memory import HostMemory


@dataclass(frozen=True)
class LatentState:
    """Buffers allocated once, when the number of KV blocks is known, and never again.

    feedback_BD: [B + 2, D], the model's dtype: the hidden state after the final norm of each block's last position.
    phase_B: [B + 2] int32.
    step_phase_R: [max requests] int32: phase after each request's token of a decode step; from inject to commit.
    request_phase_R: [max requests] int32: phase of each request's last token of this step, for the sampler.

    Two rows do not belong to a block: ``nowhere`` is only read (before position 0: phase 0) and ``discard`` only
    written (padding, and positions whose state nobody will ask for), so that every step has the same shape.
    """

    feedback_BD: Tensor
    phase_B: Tensor
    step_phase_R: Tensor
    request_phase_R: Tensor
    block_size: int

    @classmethod
    def allocate(
        cls, *, num_blocks: int, block_size: int, max_requests: int, hidden_size: int, dtype: torch.dtype, device: str
    ) -> "LatentState":
        return cls(
            feedback_BD=torch.zeros(num_blocks + 2, hidden_size, dtype=dtype, device=device),
            phase_B=torch.zeros(num_blocks + 2, dtype=torch.int32, device=device),
            step_phase_R=torch.zeros(max_requests, dtype=torch.int32, device=device),
            request_phase_R=torch.zeros(max_requests, dtype=torch.int32, device=device),
            block_size=block_size,
        )

    @property
    def nowhere(self) -> int:
        return self.phase_B.shape[0] - 2

    @property
    def discard(self) -> int:
        return self.phase_B.shape[0] - 1

    @cached_property
    def memory(self) -> HostMemory:
        """Of a state in the host's memory."""
        return HostMemory(self.feedback_BD, self.phase_B, self.step_phase_R, self.request_phase_R)


def is_inner_pad(ids: Tensor, previous_phase: Tensor, spec: LatentSpec) -> Tensor:
    """Whether a token is a pad inside a block, whose embedding is the hidden state before it. Any shape, bool."""
    return (ids == spec.pad_id) & (previous_phase >= 1) & (previous_phase <= spec.size)


def next_phase(ids: Tensor, previous_phase: Tensor, spec: LatentSpec) -> Tensor:
    """Phase after each token, from the token and the phase before it. Any shape, dtype of ``previous_phase``."""
    inner = is_inner_pad(ids, previous_phase, spec)
    return torch.where(ids == spec.start_id, 1, torch.where(inner, previous_phase + 1, 0)).to(previous_phase.dtype)


def inject(
    ids_R: Tensor,
    embeds_RD: Tensor,
    seq_lens_R: Tensor,
    block_table_RB: Tensor,
    slots_R: Tensor,
    state: LatentState,
    spec: LatentSpec,
) -> Tensor:
    """Before the language model, in a decode step: one token per request, at position ``seq_lens_R - 1``.

    In place: the embedding of a pad inside a block becomes the ``feedback`` row of the position before it. Returns the
    phase after each token, [R] int32, a view of ``state.step_phase_R``. Padded requests (slot below 0) keep their
    embedding and have phase 0. Does not synchronise.
    """
    is_real_R = slots_R >= 0
    # Only a pad asks what was before it. The rest read the one row that tells of nothing.
    asks_R = is_real_R & (ids_R == spec.pad_id)
    rows_R = row_before(seq_lens_R - 1, block_table_RB, state).masked_fill_(~asks_R, state.nowhere)
    previous_R = state.phase_B.index_select(0, rows_R)
    is_fed_R = (previous_R >= 1) & (previous_R <= spec.size)
    fed_RD = state.feedback_BD.index_select(0, rows_R)
    torch.where(is_fed_R[:, None], fed_RD, embeds_RD, out=embeds_RD)
    is_start_R = is_real_R & (ids_R == spec.start_id)
    phase_R = state.step_phase_R[: ids_R.shape[0]]
    return torch.where(is_fed_R, previous_R + 1, is_start_R, out=phase_R)  # START: 1


def row_before(positions_R: Tensor, block_table_RB: Tensor, state: LatentState) -> Tensor:
    """State row of the position before each request's; ``nowhere`` before position 0. A new tensor, [R] int64."""
    at_R = (positions_R - 1).clamp_(min=0) // state.block_size
    block_R = block_table_RB.gather(1, at_R.long()[:, None]).squeeze(1).long()
    return block_R.masked_fill_(positions_R < 1, state.nowhere)


def commit(
    hidden_TD: Tensor,
    phase_T: Tensor,
    slots_T: Tensor,
    state: LatentState,
    kept_T: Tensor | None = None,
    last_R: Tensor | None = None,
) -> None:
    """After the language model: write hidden states and phases to the rows of their blocks, and to ``request_phase_R``.

    kept_T: which tokens are the last of their request in this step or the last of their block; None: all (decode).
    last_R: index of each request's last token; None: request r is token r (decode).
    Padded tokens (slot below 0) write nothing that is ever read, except their own entry of ``request_phase_R``, which
    belongs to no request. Does not synchronise.
    """
    is_written_T = slots_T >= 0 if kept_T is None else kept_T & (slots_T >= 0)
    rows_T = (slots_T.long() // state.block_size).masked_fill_(~is_written_T, state.discard)
    state.feedback_BD.index_copy_(0, rows_T, hidden_TD)
    state.phase_B.index_copy_(0, rows_T, phase_T)
    phase_R = phase_T if last_R is None else phase_T[last_R]
    state.request_phase_R[: phase_R.shape[0]].copy_(phase_R)


def mask_logits(logits_RV: Tensor, tokens_N: Tensor, rows_M: Tensor | None = None) -> None:
    """In place: these tokens have no chance, in these rows or in all. Vectors of int64. Does not synchronise."""
    if rows_M is None:
        logits_RV.index_fill_(1, tokens_N, float("-inf"))
    else:
        logits_RV[rows_M[:, None], tokens_N] = float("-inf")


def decide(chosen_R: Tensor, phase_R: Tensor, spec: LatentSpec) -> Tensor:
    """The next token, from the sampler's choice and the phase of the token before. Any shape, dtype of ``chosen_R``.

    Inside a block ``learned``: START restarts, K pads force END, END ends early, anything else (the end of the text
    included) becomes a pad. ``fixed``: K pads, then END, whatever was chosen. Outside, the choice stands.
    """
    is_full_R = phase_R > spec.size
    forced_R = torch.where(is_full_R, spec.end_id, spec.pad_id).to(chosen_R.dtype)
    if spec.rule == "learned":
        own_R = (chosen_R == spec.start_id) | (chosen_R == spec.end_id)
        forced_R = torch.where(own_R, chosen_R, forced_R)
    return torch.where(phase_R >= 1, forced_R, chosen_R)
