"""The same where tensors lie in the host's memory: one compiled loop for each part (``loops``).

With few rows the definition takes longer to call than to compute, and so would NumPy: it is the number of calls that
costs, not what each does. What is read and written is what ``reference`` reads and writes, bit for bit, but for
``discard``, which is not written.

To ask a tensor something has its price too, so the cheapest questions are asked (``numel``, not ``len``): a step as
vLLM gives it is known by them, and what does not look like one is checked in full, and brought into that form.
"""

import torch
from torch import Tensor

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step import loops
from model_runner.kernels.latent_step.checks import check_commit, check_inject
from model_runner.kernels.latent_step.reference import LatentState

# As int32 or int16.
MINUS_INFINITY = {torch.float32: -0x800000, torch.float16: -0x400, torch.bfloat16: -0x80}


def inject(
    ids_R: Tensor,
    embeds_RD: Tensor,
    seq_lens_R: Tensor,
    block_table_RB: Tensor,
    slots_R: Tensor,
    state: LatentState,
    spec: LatentSpec,
) -> Tensor:
    """As ``reference.inject``. Rows of embeds and of the block table may be strided, and the vectors.

    Raises:
        ValueError: see ``check_inject``.
        IndexError: a position has no place in its block table, or a block none in the state.
    """
    memory, num_requests = state.memory, ids_R.numel()
    embeds_stride, embeds_step = embeds_RD.stride()
    table_stride, table_step = block_table_RB.stride()
    is_usual = (
        embeds_step == table_step == 1
        and embeds_RD.shape == (num_requests, memory.hidden_size)
        and embeds_RD.dtype is memory.dtype
        and ids_R.dtype is seq_lens_R.dtype is block_table_RB.dtype is torch.int32
        and slots_R.dtype is torch.int64
        and seq_lens_R.numel() == slots_R.numel() == block_table_RB.shape[0] == num_requests <= memory.max_requests
        and ids_R.is_contiguous()
        and seq_lens_R.is_contiguous()
        and slots_R.is_contiguous()
    )
    if not is_usual:
        check_inject(ids_R, embeds_RD, seq_lens_R, block_table_RB, slots_R, state)
        ids_R, seq_lens_R, slots_R = _flat(ids_R), _flat(seq_lens_R), _flat(slots_R, torch.int64)
        block_table_RB = block_table_RB.int()
        table_stride = block_table_RB.stride(0)
    found = loops.inject(
        num_requests,
        ids_R.data_ptr(),
        embeds_RD.data_ptr(),
        embeds_stride * memory.item_bytes,
        seq_lens_R.data_ptr(),
        block_table_RB.data_ptr(),
        table_stride,
        block_table_RB.shape[1],
        slots_R.data_ptr(),
        memory.feedback,
        memory.row_bytes,
        memory.phase,
        memory.num_rows,
        memory.step_phase,
        state.block_size,
        spec.start_id,
        spec.pad_id,
        spec.size,
    )
    if found == loops.OUTSIDE:
        raise IndexError("a position lies outside of its block table, or a block outside of the latent state")
    return memory.step_phases[num_requests]


def commit(
    hidden_TD: Tensor,
    phase_T: Tensor,
    slots_T: Tensor,
    state: LatentState,
    kept_T: Tensor | None = None,
    last_R: Tensor | None = None,
) -> None:
    """As ``reference.commit``. Rows of hidden may be strided, and the vectors.

    Raises:
        ValueError: see ``check_commit``.
        IndexError: a slot has no place in the state, or a last token none in the step.
    """
    memory, num_tokens = state.memory, phase_T.numel()
    hidden_stride, hidden_step = hidden_TD.stride()
    is_usual = (
        kept_T is last_R is None
        and hidden_step == 1
        and hidden_TD.shape == (num_tokens, memory.hidden_size)
        and hidden_TD.dtype is memory.dtype
        and phase_T.dtype is torch.int32
        and slots_T.dtype is torch.int64
        and slots_T.numel() == num_tokens <= memory.max_requests
        and phase_T.is_contiguous()
        and slots_T.is_contiguous()
    )
    if not is_usual:
        check_commit(hidden_TD, phase_T, slots_T, state, kept_T, last_R)
        phase_T, slots_T = _flat(phase_T), _flat(slots_T, torch.int64)
        kept_T = None if kept_T is None else _flat(kept_T, torch.bool)
        last_R = None if last_R is None else _flat(last_R, torch.int64)
    found = loops.commit(
        num_tokens,
        num_tokens if last_R is None else last_R.numel(),
        hidden_TD.data_ptr(),
        hidden_stride * memory.item_bytes,
        phase_T.data_ptr(),
        slots_T.data_ptr(),
        0 if kept_T is None else kept_T.data_ptr(),
        0 if last_R is None else last_R.data_ptr(),
        memory.feedback,
        memory.row_bytes,
        memory.phase,
        memory.num_rows,
        memory.request_phase,
        state.block_size,
    )
    if found == loops.OUTSIDE:
        raise IndexError("a slot lies outside of the latent state, or the last token of a request outside of the step")
    memory.is_inside = found == 1


def decide(chosen_R: Tensor, phase_R: Tensor, spec: LatentSpec) -> Tensor:
    """As ``reference.decide``.

    Raises:
        ValueError: the shapes differ.
    """
    if chosen_R.shape != phase_R.shape:
        raise ValueError(f"{tuple(chosen_R.shape)} tokens, and phases of shape {tuple(phase_R.shape)}")
    chosen, phase = _flat(chosen_R), _flat(phase_R)
    decided = torch.empty_like(chosen)
    loops.decide(
        decided.numel(),
        chosen.data_ptr(),
        phase.data_ptr(),
        decided.data_ptr(),
        spec.rule == "learned",
        spec.size,
        spec.start_id,
        spec.pad_id,
        spec.end_id,
    )
    return decided if chosen_R.dtype is torch.int32 else decided.to(chosen_R.dtype)


def mask_logits(logits_RV: Tensor, tokens_N: Tensor, rows_M: Tensor | None = None) -> None:
    """As ``reference.mask_logits``, of which no index may be negative.

    Raises:
        ValueError: logits are strided within a row, or of a type that no model has; or a vector is strided, or not of
            int64.
        IndexError: there is no such token or row.
    """
    row_stride, step = logits_RV.stride()
    dtype = logits_RV.dtype
    if step != 1 or dtype not in MINUS_INFINITY:
        raise ValueError(f"logits of {dtype} and of strides {logits_RV.stride()}")
    if not all(one is None or (one.dtype is torch.int64 and one.is_contiguous()) for one in (tokens_N, rows_M)):
        raise ValueError("tokens and rows must be contiguous vectors of int64")
    item_bytes = dtype.itemsize
    num_rows, vocabulary = logits_RV.shape
    found = loops.mask_logits(
        num_rows if rows_M is None else rows_M.numel(),
        tokens_N.numel(),
        logits_RV.data_ptr(),
        num_rows,
        vocabulary,
        row_stride * item_bytes,
        tokens_N.data_ptr(),
        0 if rows_M is None else rows_M.data_ptr(),
        item_bytes,
        MINUS_INFINITY[dtype],
    )
    if found == loops.OUTSIDE:
        raise IndexError(f"a token or row to be masked lies outside of logits of {num_rows} rows of {vocabulary}")


def _flat(vector: Tensor, dtype: torch.dtype = torch.int32) -> Tensor:
    """As ``loops`` reads it."""
    return vector.to(dtype).contiguous()
