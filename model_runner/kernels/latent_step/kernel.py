"""The latent step in Triton: one launch for ``inject``, one for ``commit``, the same as ``reference`` does in a dozen.

A program handles one tile of the hidden axis of one row. The axis is cut, so that a single row of a wide model does not
wait on one program; programs with nothing to copy read three numbers and end. Of the programs of a row the one of tile
0 writes the phase. No launch reads what it writes, so the order of programs does not matter.

Safe in a FULL CUDA graph: nothing is allocated, and the host learns nothing of what a tensor holds. Shapes and strides
are captured, everything else is read when the graph runs.

An engine compiles three kernels and no more while it serves: ``inject``, and ``commit`` with and without ``kept_T``.
What never changes is ``constexpr``. Numbers of rows and tokens, strides and ids are not specialised on (Triton would
compile anew for 1 and for multiples of 16), nor is where a vector of single numbers begins in memory. Only the rows
that are copied are: that they begin at multiples of 16 bytes makes wide loads of them.

Shape letters: R requests, T tokens of this step, D hidden size, B KV blocks.
"""
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, no-untyped-def, misc"

import triton
import triton.language as tl
from torch import Tensor

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step.checks import check_commit, check_inject
from model_runner.kernels.latent_step.reference import LatentState

# Of a 2-byte type 16 bytes for each of 128 threads: one load, the widest that sm_80 and sm_90 have.
MAX_TILE = 1024
ELEMENTS_PER_WARP = 256


def tile_of(hidden_size: int) -> tuple[int, int]:
    """(elements of the hidden axis per program, warps per program)."""
    tile = min(triton.next_power_of_2(hidden_size), MAX_TILE)
    return tile, max(1, tile // ELEMENTS_PER_WARP)


@triton.jit(
    do_not_specialize=["ids_stride", "seq_lens_stride", "table_stride", "slots_stride", "pad_id", "start_id", "size"],
    do_not_specialize_on_alignment=["ids", "seq_lens", "table", "slots", "phase", "step_phase"],
)
def _inject(
    ids,
    embeds,
    seq_lens,
    table,
    slots,
    feedback,
    phase,
    step_phase,
    ids_stride,
    embeds_stride,
    seq_lens_stride,
    table_stride,
    slots_stride,
    pad_id,
    start_id,
    size,
    hidden_size: tl.constexpr,
    block_size: tl.constexpr,
    tile: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)  # 64 bits from here on: rows x hidden size can pass 2^31
    token = tl.load(ids + row * ids_stride)
    before = tl.load(seq_lens + row * seq_lens_stride) - 2  # the position before this token's
    is_real = tl.load(slots + row * slots_stride) >= 0
    # Only a pad asks what was before it.
    asks = is_real & (token == pad_id) & (before >= 0)
    block = tl.load(table + row * table_stride + before // block_size, mask=asks, other=0).to(tl.int64)
    previous = tl.load(phase + block, mask=asks, other=0)
    is_inner = (previous >= 1) & (previous <= size)
    if tl.program_id(1) == 0:
        after = tl.where(is_inner, previous + 1, 0)
        after = tl.where(is_real & (token == start_id), 1, after)
        tl.store(step_phase + row, after)
    at = tl.program_id(1) * tile + tl.arange(0, tile)
    is_copied = is_inner & (at < hidden_size)
    fed = tl.load(feedback + block * hidden_size + at, mask=is_copied)
    tl.store(embeds + row * embeds_stride + at, fed, mask=is_copied)


@triton.jit(
    do_not_specialize=["num_tokens", "num_requests", "phase_stride", "slots_stride", "kept_stride", "last_stride"],
    do_not_specialize_on_alignment=["phase_after", "slots", "kept", "last", "phase", "request_phase"],
)
def _commit(
    hidden,
    phase_after,
    slots,
    kept,
    last,
    feedback,
    phase,
    request_phase,
    num_tokens,
    num_requests,
    hidden_stride,
    phase_stride,
    slots_stride,
    kept_stride,
    last_stride,
    hidden_size: tl.constexpr,
    block_size: tl.constexpr,
    tile: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    is_token = row < num_tokens  # there may be more requests than tokens: padded ones have none
    slot = tl.load(slots + row * slots_stride, mask=is_token, other=-1).to(tl.int64)
    is_written = slot >= 0
    if kept is not None:
        is_written = is_written & tl.load(kept + row * kept_stride, mask=is_token, other=0).to(tl.int1)
    block = slot // block_size
    if tl.program_id(1) == 0:
        tl.store(phase + block, tl.load(phase_after + row * phase_stride, mask=is_written, other=0), mask=is_written)
        # Row r is also request r here, whose last token may be any of the step.
        is_request = row < num_requests
        at_last = row
        if last is not None:
            at_last = tl.load(last + row * last_stride, mask=is_request, other=0).to(tl.int64)
        of_last = tl.load(phase_after + at_last * phase_stride, mask=is_request, other=0)
        tl.store(request_phase + row, of_last, mask=is_request)
    at = tl.program_id(1) * tile + tl.arange(0, tile)
    is_copied = is_written & (at < hidden_size)
    state = tl.load(hidden + row * hidden_stride + at, mask=is_copied)
    tl.store(feedback + block * hidden_size + at, state, mask=is_copied)


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
    """
    check_inject(ids_R, embeds_RD, seq_lens_R, block_table_RB, slots_R, state)
    num_requests, hidden_size = embeds_RD.shape
    phase_R = state.step_phase_R[:num_requests]
    if num_requests == 0:
        return phase_R
    tile, num_warps = tile_of(hidden_size)
    _inject[(num_requests, triton.cdiv(hidden_size, tile))](
        ids_R,
        embeds_RD,
        seq_lens_R,
        block_table_RB,
        slots_R,
        state.feedback_BD,
        state.phase_B,
        phase_R,
        ids_R.stride(0),
        embeds_RD.stride(0),
        seq_lens_R.stride(0),
        block_table_RB.stride(0),
        slots_R.stride(0),
        spec.pad_id,
        spec.start_id,
        spec.size,
        hidden_size=hidden_size,
        block_size=state.block_size,
        tile=tile,
        num_warps=num_warps,
    )
    return phase_R


def commit(
    hidden_TD: Tensor,
    phase_T: Tensor,
    slots_T: Tensor,
    state: LatentState,
    kept_T: Tensor | None = None,
    last_R: Tensor | None = None,
) -> None:
    """As ``reference.commit``, except that ``discard`` is not written. Rows of hidden may be strided, and the vectors.

    Raises:
        ValueError: see ``check_commit``.
    """
    check_commit(hidden_TD, phase_T, slots_T, state, kept_T, last_R)
    num_tokens, hidden_size = hidden_TD.shape
    num_requests = num_tokens if last_R is None else last_R.shape[0]
    num_rows = max(num_tokens, num_requests)
    if num_rows == 0:
        return
    tile, num_warps = tile_of(hidden_size)
    _commit[(num_rows, triton.cdiv(hidden_size, tile))](
        hidden_TD,
        phase_T,
        slots_T,
        kept_T,
        last_R,
        state.feedback_BD,
        state.phase_B,
        state.request_phase_R,
        num_tokens,
        num_requests,
        hidden_TD.stride(0),
        phase_T.stride(0),
        slots_T.stride(0),
        0 if kept_T is None else kept_T.stride(0),
        0 if last_R is None else last_R.stride(0),
        hidden_size=hidden_size,
        block_size=state.block_size,
        tile=tile,
        num_warps=num_warps,
    )
