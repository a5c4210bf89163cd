"""Parity of the Triton kernels with the definition in float64, over odd shapes, types and strides.

There is no tolerance: hidden states and phases are moved and never computed with, so what comes out has to be the very
bits that went in. On a GPU this runs compiled kernels, ``make test-gpu``; with TRITON_INTERPRET=1 the same cases run on
a CPU.
"""

import pytest
import torch

from model_runner.kernels.latent_step import latent_step, reference
from tests.model_runner.kernels import steps
from tests.model_runner.kernels.cases import CAN_RUN_TRITON, INTERPRETED, TRITON_DEVICE
from tests.model_runner.kernels.rows import (
    check_bits,
    check_strided,
    check_too_short_is_refused,
    check_turned_is_refused,
)
from tests.model_runner.kernels.steps import (
    BLOCK_SIZES,
    DTYPES,
    HIDDEN_SIZES,
    NUM_REQUESTS,
    SIZE,
    Step,
    check_states,
    make_step,
)
from tests.model_runner.simulator import PAD

if not CAN_RUN_TRITON:
    pytest.skip("needs triton, and TRITON_INTERPRET=1 or a GPU: make test-kernels", allow_module_level=True)
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]


def check(step: Step) -> None:
    steps.check(step.to(TRITON_DEVICE), step.to("cpu", torch.float64), "triton")


@DTYPES
@HIDDEN_SIZES
@NUM_REQUESTS
def test_a_decode_step(num_requests: int, hidden_size: int, dtype: torch.dtype) -> None:
    block_size = BLOCK_SIZES[(num_requests + hidden_size) % len(BLOCK_SIZES)]
    check(make_step(num_requests, hidden_size, dtype, block_size))


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("ints", [torch.int32, torch.int64], ids=str)
def test_every_block_size_and_both_integers(block_size: int, ints: torch.dtype) -> None:
    check(make_step(64, 3, torch.float32, block_size, ints=ints))


def test_the_cases_hold_what_they_are_for() -> None:
    """Each phase at which a pad is or is not a latent, at each edge of a block; padded rows; rows that are copied."""
    seen = set()
    for block_size in BLOCK_SIZES:
        step = make_step(64, 1, torch.float32, block_size)
        rows_R = reference.row_before(step.seq_lens_R - 1, step.table_RB, step.state)
        is_pad_R = (step.ids_R == PAD) & (step.slots_R >= 0) & (step.seq_lens_R > 1)
        seen |= {int(phase) for phase in step.state.phase_B[rows_R][is_pad_R]}
        phase_R = step.inject(reference.inject)
        assert int((phase_R > 1).sum()) >= 5
        assert int((step.slots_R < 0).sum()) == 12
    assert seen == {0, 1, 2, SIZE, SIZE + 1}


@DTYPES
@pytest.mark.parametrize("hidden_size", [3, 896, 4097])
@pytest.mark.parametrize("ints", [torch.int32, torch.int64], ids=str)
def test_several_tokens_per_request(hidden_size: int, dtype: torch.dtype, ints: torch.dtype) -> None:
    """The commit of a prefill step: some tokens are kept, last tokens in any order, more requests than tokens."""
    _, commit, *_ = latent_step("triton")
    step = make_step(17, hidden_size, dtype, 5, ints=ints)
    phase_T = (torch.arange(17) % (SIZE + 2)).int()
    kept_T = torch.arange(17) % 3 != 1
    last_R = torch.tensor([16, 4, 4, 0, *range(17)])  # 4 is padded and 16 is kept: neither matters
    got, want = step.to(TRITON_DEVICE), step.to("cpu", torch.float64)
    moved = [one.to(TRITON_DEVICE) for one in (phase_T, kept_T, last_R)]
    commit(got.hidden_RD, moved[0], got.slots_R, got.state, moved[1], moved[2])
    reference.commit(want.hidden_RD, phase_T, want.slots_R, want.state, kept_T, last_R)
    check_states(got.state, want.state)
    no_request = torch.zeros(0, dtype=torch.int64, device=TRITON_DEVICE)
    commit(got.hidden_RD[:0], moved[0][:0], got.slots_R[:0], got.state, moved[1][:0], no_request)
    check_states(got.state, want.state)


@DTYPES
def test_bits_are_moved_as_they_are(dtype: torch.dtype) -> None:
    check_bits("triton", TRITON_DEVICE, dtype)


@DTYPES
@pytest.mark.parametrize("hidden_size", [1, 64, 127])
def test_strided_inputs(hidden_size: int, dtype: torch.dtype) -> None:
    check_strided("triton", TRITON_DEVICE, make_step(17, hidden_size, dtype, 5))


@pytest.mark.parametrize("name", ["embeds_RD", "hidden_RD", "table_RB"])
def test_rows_that_are_not_contiguous_are_refused(name: str) -> None:
    check_turned_is_refused("triton", name)


def test_what_would_be_read_or_written_past_its_end_is_refused() -> None:
    check_too_short_is_refused("triton")


@pytest.mark.parametrize("what", ["one bit of a row", "the phase after a pad", "a row of its neighbour"])
def test_the_comparison_notices(what: str) -> None:
    """It has teeth: the smallest differences of each kind are outside it."""
    step = make_step(17, 64, torch.bfloat16, 5)
    got, want = step.to("cpu"), step.to("cpu", torch.float64)
    for one in (got, want):
        one.inject(reference.inject)
        reference.commit(one.hidden_RD, one.state.step_phase_R[:17], one.slots_R, one.state)
    check_states(got.state, want.state)
    row = int(got.slots_R[0]) // 5
    if what == "one bit of a row":
        got.state.feedback_BD.view(torch.int16)[row, 63] ^= 1
    elif what == "the phase after a pad":
        got.state.request_phase_R[0] += 1
    else:
        got.state.feedback_BD[row] = got.state.feedback_BD[int(got.slots_R[1]) // 5].clone()
    with pytest.raises(AssertionError):
        check_states(got.state, want.state)
