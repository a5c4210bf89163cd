"""Steps in which a request computes several tokens: prompts, preempted requests, histories with latent blocks.

Phases of all tokens are found by a segmented scan over the step, not by a loop over tokens. Tokens are linked to the
token before them; the first of a request may be linked to a token of *another* request, because vLLM lets requests
that arrive together share a block while one of them is still filling it.

Shape letters: R requests, T tokens of this step, B KV blocks of a request.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step.reference import LatentState, is_inner_pad, row_before

NO_LINK = -1


@dataclass(frozen=True)
class Chunk:
    """What the tokens of a step are to each other.

    request_T: row of its request in the batch. int64
    link_T: index of the token before, computed in this step too, or ``NO_LINK``. int64
    row_T: state row of the position before; meaningful where there is no link. int64
    phase_T: phase after each token. int32
    inner_T: whether it is a pad inside a block. bool
    kept_T: whether its state is to be committed: last of its request in this step, or last of its block. bool
    last_R: index of each request's last token. int64
    positions_T: position in the sequence. int64
    """

    request_T: Tensor
    link_T: Tensor
    row_T: Tensor
    phase_T: Tensor
    inner_T: Tensor
    kept_T: Tensor
    last_R: Tensor
    positions_T: Tensor


def read_chunk(
    ids_T: Tensor,
    query_start_loc: Tensor,
    seq_lens_R: Tensor,
    block_table_RB: Tensor,
    slots_T: Tensor,
    state: LatentState,
    spec: LatentSpec,
) -> Chunk:
    """Links, phases and inner pads of a step. query_start_loc: [R + 1]. Synchronises, as prefill steps may."""
    num_tokens = ids_T.shape[0]
    index_T = torch.arange(num_tokens, device=ids_T.device)
    start_R = query_start_loc[:-1].long()
    length_R = query_start_loc[1:].long() - start_R
    request_T = torch.repeat_interleave(torch.arange(start_R.shape[0], device=ids_T.device), length_R)
    first_position_R = seq_lens_R.long() - length_R
    positions_T = first_position_R[request_T] + index_T - start_R[request_T]

    row_R = row_before(first_position_R, block_table_RB, state)
    first_link_R = _find_slots(row_R * state.block_size + (first_position_R - 1) % state.block_size, slots_T)
    first_link_R = torch.where(first_position_R > 0, first_link_R, NO_LINK)
    is_first_T = index_T == start_R[request_T]
    link_T = torch.where(is_first_T, first_link_R[request_T], index_T - 1)

    stored_R = state.phase_B[row_R]
    before_R = torch.where(first_link_R == NO_LINK, stored_R, 0)
    while True:  # once, plus once for each request in the longest chain of requests that share unfinished blocks
        phase_T = _scan(ids_T, is_first_T, before_R[request_T], index_T, spec)
        linked_R = torch.where(first_link_R == NO_LINK, stored_R, phase_T[first_link_R.clamp(min=0)])
        if torch.equal(linked_R, before_R):
            break
        before_R = linked_R
    previous_T = torch.where(is_first_T, before_R[request_T], phase_T[(index_T - 1).clamp(min=0)])

    kept_T, last_R = kept_tokens(query_start_loc, slots_T, state)
    return Chunk(
        request_T=request_T,
        link_T=link_T,
        row_T=row_R[request_T],
        phase_T=phase_T,
        inner_T=is_inner_pad(ids_T, previous_T, spec),
        kept_T=kept_T,
        last_R=last_R,
        positions_T=positions_T,
    )


def kept_tokens(query_start_loc: Tensor, slots_T: Tensor, state: LatentState) -> tuple[Tensor, Tensor]:
    """(kept_T, last_R) of :class:`Chunk`."""
    last_R = query_start_loc[1:].long() - 1
    kept_T = slots_T % state.block_size == state.block_size - 1
    kept_T[last_R] = True
    return kept_T, last_R


def _find_slots(wanted_R: Tensor, slots_T: Tensor) -> Tensor:
    """Index of the token of this step that has each slot, or ``NO_LINK``."""
    sorted_T, order_T = slots_T.long().sort()
    at_R = torch.searchsorted(sorted_T, wanted_R).clamp(max=slots_T.shape[0] - 1)
    return torch.where(sorted_T[at_R] == wanted_R, order_T[at_R], NO_LINK)


def _scan(ids_T: Tensor, is_first_T: Tensor, before_T: Tensor, index_T: Tensor, spec: LatentSpec) -> Tensor:
    """Phase after each token, given the phase before each request's first token. [T] int32.

    A run of pads counts on from its anchor: the token before the run, or the first of the request if that is a pad.
    """
    is_pad_T = ids_T == spec.pad_id
    anchor_T = torch.where(is_pad_T & ~is_first_T, 0, index_T).cummax(0).values
    is_inner_first_T = is_inner_pad(ids_T, before_T, spec)
    at_anchor_T = torch.where(ids_T == spec.start_id, 1, torch.where(is_inner_first_T, before_T + 1, 0))[anchor_T]
    phase_T = at_anchor_T + index_T - anchor_T
    return torch.where((at_anchor_T >= 1) & (phase_T <= spec.size + 1), phase_T, 0).int()
