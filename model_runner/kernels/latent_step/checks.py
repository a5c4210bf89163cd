"""Shapes, types and strides by which a compiled loop or kernel would read or write past an end are refused before."""

from torch import Tensor

from model_runner.kernels.latent_step.reference import LatentState


def check_inject(
    ids_R: Tensor, embeds_RD: Tensor, seq_lens_R: Tensor, block_table_RB: Tensor, slots_R: Tensor, state: LatentState
) -> None:
    """What ``inject`` cannot be given.

    Raises:
        ValueError: embeds or block table are strided within a row, embeds are of another type or width than the state,
            there are more requests than it is for, or lengths differ.
    """
    num_requests = embeds_RD.shape[0]
    _check_rows(embeds_RD, "embeds", state)
    _check_contiguous(block_table_RB, "block table")
    _check_capacity(num_requests, state)
    lengths = [one.shape[0] for one in (ids_R, seq_lens_R, block_table_RB, slots_R)]
    if lengths != [num_requests] * 4:
        raise ValueError(f"{num_requests} requests, given {lengths} of their numbers")


def check_commit(
    hidden_TD: Tensor,
    phase_T: Tensor,
    slots_T: Tensor,
    state: LatentState,
    kept_T: Tensor | None,
    last_R: Tensor | None,
) -> None:
    """What ``commit`` cannot be given.

    Raises:
        ValueError: hidden is strided within a row, or of another type or width than the state; there are more requests
            than it is for, or lengths differ.
    """
    num_tokens = hidden_TD.shape[0]
    _check_rows(hidden_TD, "hidden", state)
    _check_capacity(num_tokens if last_R is None else last_R.shape[0], state)
    if any(one is not None and one.shape[0] != num_tokens for one in (phase_T, slots_T, kept_T)):
        raise ValueError(f"{num_tokens} tokens, and phases, slots or what is kept of another number")


def _check_capacity(num_requests: int, state: LatentState) -> None:
    if num_requests > state.step_phase_R.shape[0]:
        raise ValueError(f"{num_requests} requests, the latent state is for {state.step_phase_R.shape[0]}")


def _check_rows(rows: Tensor, name: str, state: LatentState) -> None:
    _check_contiguous(rows, name)
    if rows.dtype != state.feedback_BD.dtype:
        raise ValueError(f"{name} are {rows.dtype}, the latent state is {state.feedback_BD.dtype}")
    if rows.shape[1] != state.feedback_BD.shape[1]:
        raise ValueError(f"{name} are {rows.shape[1]} wide, the latent state is {state.feedback_BD.shape[1]}")


def _check_contiguous(rows: Tensor, name: str) -> None:
    if rows.shape[1] > 1 and rows.stride(1) != 1:
        raise ValueError(f"{name} must be contiguous within a row, not of strides {rows.stride()}")
