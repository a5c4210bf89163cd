"""Parity of what a CPU runs with the definition in float64, over the same shapes, types and strides as the kernels."""

import sys
from dataclasses import replace

import pytest
import torch

from model_runner.kernels.latent_step import host, reference
from tests.model_runner.kernels import steps
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
    NUM_BLOCKS,
    NUM_REQUESTS,
    SIZE,
    SPEC,
    Step,
    check_states,
    in_wider_rows,
    make_step,
)
from tests.model_runner.simulator import PAD


def check(got: Step) -> None:
    steps.check(got, got.to("cpu", torch.float64), "host")


@DTYPES
@HIDDEN_SIZES
@NUM_REQUESTS
def test_a_decode_step(num_requests: int, hidden_size: int, dtype: torch.dtype) -> None:
    block_size = BLOCK_SIZES[(num_requests + hidden_size) % len(BLOCK_SIZES)]
    check(make_step(num_requests, hidden_size, dtype, block_size))


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("ints", [torch.int32, torch.int64], ids=str)
def test_every_block_size_and_both_integers(block_size: int, ints: torch.dtype) -> None:
    step = make_step(64, 3, torch.float32, block_size, ints=ints)
    check(replace(step, table_RB=step.table_RB.to(ints)))


@DTYPES
@pytest.mark.parametrize("hidden_size", [3, 896, 4097])
def test_several_tokens_per_request(hidden_size: int, dtype: torch.dtype) -> None:
    """The commit of a prefill step: some tokens are kept, last tokens in any order, more requests than tokens."""
    got = make_step(17, hidden_size, dtype, 5)
    want = got.to("cpu", torch.float64)
    phase_T = (torch.arange(17) % (SIZE + 2)).int()
    kept_T = torch.arange(17) % 3 != 1
    last_R = torch.tensor([16, 4, 4, 0, *range(17)])
    host.commit(got.hidden_RD, phase_T, got.slots_R, got.state, kept_T, last_R)
    reference.commit(want.hidden_RD, phase_T, want.slots_R, want.state, kept_T, last_R)
    check_states(got.state, want.state)


@DTYPES
def test_bits_are_moved_as_they_are(dtype: torch.dtype) -> None:
    check_bits("host", "cpu", dtype)


@DTYPES
@pytest.mark.parametrize("hidden_size", [1, 64, 127])
def test_strided_inputs(hidden_size: int, dtype: torch.dtype) -> None:
    check_strided("host", "cpu", make_step(17, hidden_size, dtype, 5))


@pytest.mark.parametrize("name", ["embeds_RD", "hidden_RD", "table_RB"])
def test_rows_that_are_not_contiguous_are_refused(name: str) -> None:
    check_turned_is_refused("host", name)


def test_what_would_be_read_or_written_past_its_end_is_refused() -> None:
    check_too_short_is_refused("host")
    with pytest.raises(ValueError, match=r"\(3, 1\) tokens.*\(2, 1\)"):
        host.decide(torch.zeros(3, 1), torch.zeros(2, 1), SPEC)


@DTYPES
@pytest.mark.parametrize("rows", [None, [], [0], [4, 0, 2]], ids=str)
def test_tokens_that_are_masked(dtype: torch.dtype, rows: list[int] | None) -> None:
    """In rows within wider ones, and nothing else is touched."""
    tokens = torch.tensor([6, 0])
    got, want = (in_wider_rows(torch.arange(35, dtype=dtype).view(5, 7)) for _ in range(2))
    for mask_logits, logits in ((host.mask_logits, got), (reference.mask_logits, want)):
        mask_logits(logits, tokens, None if rows is None else torch.tensor(rows, dtype=torch.int64))
    assert int(want.isinf().sum()) == 2 * (5 if rows is None else len(rows))
    wide = [logits.as_strided((5, 12), (12, 1), storage_offset=0) for logits in (got, want)]
    assert torch.equal(wide[0], wide[1])


def test_logits_that_cannot_be_written_are_refused() -> None:
    for logits in (torch.zeros(2, 3).t(), torch.zeros(2, 3).double()):
        with pytest.raises(ValueError, match="logits of"):
            host.mask_logits(logits, torch.tensor([0]))
    for rows in (torch.tensor([0], dtype=torch.int32), torch.arange(4)[::2]):
        with pytest.raises(ValueError, match="of int64"):
            host.mask_logits(torch.zeros(2, 3), torch.tensor([0]), rows)
        with pytest.raises(ValueError, match="of int64"):
            host.mask_logits(torch.zeros(2, 3), rows)


def no_tokens(step: Step, last: int) -> None:
    none_T = torch.zeros(0, dtype=torch.int32)
    slots_T, kept_T = none_T.long(), none_T.bool()
    host.commit(step.hidden_RD[:0], none_T, slots_T, step.state, kept_T, torch.tensor([last]))


OUTSIDE = {
    "a slot past the blocks": lambda step: host.commit(
        step.hidden_RD, step.state.step_phase_R[:3], torch.tensor([0, 5 * (NUM_BLOCKS + 2), 0]), step.state
    ),
    "the last token of a step without any": lambda step: no_tokens(step, 0),
    "a last token before the first": lambda step: no_tokens(step, -1),
    "a position past the block table": lambda step: replace(step, table_RB=step.table_RB[:, :0]).inject(host.inject),
    "a block before the first": lambda step: replace(step, table_RB=step.table_RB * 0 - 1).inject(host.inject),
    "a block past the last": lambda step: replace(step, table_RB=step.table_RB * 0 + NUM_BLOCKS + 2).inject(
        host.inject
    ),
    "a token past the vocabulary": lambda _: host.mask_logits(torch.zeros(2, 3), torch.tensor([0, 3])),
    "a token before the first": lambda _: host.mask_logits(torch.zeros(2, 3), torch.tensor([-1])),
    "a row past the last": lambda _: host.mask_logits(torch.zeros(2, 3), torch.tensor([0]), torch.tensor([2])),
    "a row before the first": lambda _: host.mask_logits(torch.zeros(2, 3), torch.tensor([0]), torch.tensor([-1])),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_what_points_outside_is_refused(what: str) -> None:
    """As the definition does, or vLLM would write into memory that is not its own, and say nothing."""
    step = make_step(3, 64, torch.float32, 5)
    step = replace(step, ids_R=torch.full_like(step.ids_R, PAD), seq_lens_R=torch.full_like(step.seq_lens_R, 9))
    with pytest.raises(IndexError, match="outside"):
        OUTSIDE[what](step)


@pytest.mark.parametrize("kept", [[], [True, False]], ids=str)
def test_the_commit_of_a_prefill_step_of_few_tokens_or_none(kept: list[bool]) -> None:
    got = make_step(len(kept), 64, torch.float32, 5)
    want = got.to("cpu", torch.float64)
    told = torch.ones(len(kept), dtype=torch.int32), got.slots_R
    for commit, step in ((host.commit, got), (reference.commit, want)):
        kept_T, last_R = torch.tensor(kept, dtype=torch.bool), torch.arange(len(kept))
        commit(step.hidden_RD, *told, step.state, kept_T, last_R)
    check_states(got.state, want.state)
    assert got.state.memory.is_inside == bool(kept)


def test_the_comparison_notices_a_bit() -> None:
    step = make_step(17, 64, torch.bfloat16, 5)
    want = step.to("cpu", torch.float64)
    row = int((step.state.phase_B[:-2] > 0).nonzero()[0])
    step.state.feedback_BD.view(torch.int16)[row, 63] ^= 1
    with pytest.raises(AssertionError):
        check_states(step.state, want.state)


def test_vllm_may_ask_llvmlite_for_its_vars() -> None:
    """As it asks all that modules hold, for a kernel of its own, before a worker starts."""
    asked = [
        one
        for name, module in list(sys.modules.items())
        if name.startswith(("llvmlite", "numba"))
        for one in list(vars(module).values())
        if hasattr(one, "__dict__")
    ]
    assert any(type(one).__module__ == "llvmlite.binding.ffi" for one in asked)
    assert [one for one in asked if vars(one).get("kernel") is not None] == []
