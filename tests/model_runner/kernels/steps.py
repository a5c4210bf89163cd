"""Decode steps of odd shapes and types with every kind of row in them, and what it means that two came to the same."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from model_runner.kernels.latent_step import Implementation, LatentState, latent_step, reference
from tests.model_runner.simulator import PAD, START, TOKENS, make_spec

SIZE = 3
SPEC = make_spec(SIZE)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
HIDDEN_SIZES = pytest.mark.parametrize("hidden_size", [1, 3, 64, 127, 896, 4097])  # 4097: more than whole tiles
NUM_REQUESTS = pytest.mark.parametrize("num_requests", [0, 1, 2, 3, 17, 64])
BLOCK_SIZES = (1, 5, 16, 32)
NUM_BLOCKS = 150
MAX_REQUESTS = 70
WIDTH = 8  # blocks of a request


@dataclass
class Step:
    """A batch of one token per request, with every kind of row in it; on the CPU."""

    ids_R: Tensor
    embeds_RD: Tensor
    seq_lens_R: Tensor
    table_RB: Tensor
    slots_R: Tensor
    hidden_RD: Tensor
    state: LatentState

    def to(self, device: str, dtype: torch.dtype | None = None) -> "Step":
        """A copy, floating point numbers in ``dtype`` if one is given."""
        state = self.state
        return Step(
            ids_R=self.ids_R.to(device, copy=True),
            embeds_RD=self.embeds_RD.to(device, dtype, copy=True),
            seq_lens_R=self.seq_lens_R.to(device, copy=True),
            table_RB=self.table_RB.to(device, copy=True),
            slots_R=self.slots_R.to(device, copy=True),
            hidden_RD=self.hidden_RD.to(device, dtype, copy=True),
            state=replace(
                state,
                feedback_BD=state.feedback_BD.to(device, dtype, copy=True),
                phase_B=state.phase_B.to(device, copy=True),
                step_phase_R=state.step_phase_R.to(device, copy=True),
                request_phase_R=state.request_phase_R.to(device, copy=True),
            ),
        )

    def inject(self, inject) -> Tensor:
        return inject(self.ids_R, self.embeds_RD, self.seq_lens_R, self.table_RB, self.slots_R, self.state, SPEC)


def make_step(
    num_requests: int, hidden_size: int, dtype: torch.dtype, block_size: int, *, ints: torch.dtype | None = None
) -> Step:
    """Rows differ in token, phase before (0, 1, 2, K, K + 1) and position (0, and each side of block boundaries).

    ``ints``: the type of all vectors; None: as vLLM gives them, slots in int64 and the others in int32.
    """
    g = torch.Generator().manual_seed(num_requests * 7919 + hidden_size)
    state = LatentState.allocate(
        num_blocks=NUM_BLOCKS,
        block_size=block_size,
        max_requests=MAX_REQUESTS,
        hidden_size=hidden_size,
        dtype=dtype,
        device="cpu",
    )
    state.feedback_BD[:NUM_BLOCKS] = torch.randn(NUM_BLOCKS, hidden_size, generator=g).to(dtype)
    state.phase_B[:NUM_BLOCKS] = torch.randint(0, SIZE + 2, (NUM_BLOCKS,), generator=g, dtype=torch.int32)
    state.feedback_BD[:NUM_BLOCKS][state.phase_B[:NUM_BLOCKS] == 0] = float("nan")  # stale: may never be copied
    table_RB = torch.randint(0, NUM_BLOCKS, (num_requests, WIDTH), generator=g)
    own_R = torch.randperm(NUM_BLOCKS, generator=g)[:num_requests]  # what is written belongs to one request
    edges = torch.tensor([0, 1, block_size - 1, block_size, block_size + 1, 2 * block_size, WIDTH * block_size - 1])
    positions_R = edges[torch.arange(num_requests) % len(edges)]
    table_RB.scatter_(1, (positions_R // block_size)[:, None], own_R[:, None])
    tokens = torch.tensor([*TOKENS, PAD, PAD, PAD, START])
    is_padded_R = torch.arange(num_requests) % 5 == 4
    return Step(
        ids_R=tokens[torch.randint(0, len(tokens), (num_requests,), generator=g)].to(ints or torch.int32),
        embeds_RD=torch.randn(num_requests, hidden_size, generator=g).to(dtype),
        seq_lens_R=(positions_R + 1).to(ints or torch.int32),
        table_RB=table_RB.to(torch.int32),
        slots_R=torch.where(is_padded_R, -1, own_R * block_size + positions_R % block_size).to(ints or torch.int64),
        hidden_RD=torch.randn(num_requests, hidden_size, generator=g).to(dtype),
        state=state,
    )


def same(got: Tensor, want: Tensor) -> bool:
    """Whether numbers are those of ``want`` in float64, which holds each of them: bit by bit, NaN and -0 included."""
    if got.is_floating_point():
        return torch.equal(got.cpu().double().view(torch.int64), want.view(torch.int64))
    return torch.equal(got.cpu(), want)


def check_states(got: LatentState, want: LatentState) -> None:
    """Of all rows that may be read: the last one, ``discard``, may not."""
    assert same(got.feedback_BD[:-1], want.feedback_BD[:-1])
    assert same(got.phase_B[:-1], want.phase_B[:-1])
    assert same(got.request_phase_R, want.request_phase_R)


def check(
    got: Step,
    want: Step,
    implementation: Implementation,
) -> None:
    """inject, then commit: the implementation on one, the definition on a copy of it in float64."""
    inject, commit, *_ = latent_step(implementation)
    got_phase_R, want_phase_R = got.inject(inject), want.inject(reference.inject)
    assert same(got_phase_R, want_phase_R)
    assert same(got.embeds_RD, want.embeds_RD)
    commit(got.hidden_RD, got_phase_R, got.slots_R, got.state)
    reference.commit(want.hidden_RD, want_phase_R, want.slots_R, want.state)
    check_states(got.state, want.state)


def in_wider_rows(rows: Tensor) -> Tensor:
    """The same rows within wider ones, which begin where 16 bytes do not."""
    wide = rows.new_zeros(rows.shape[0], rows.shape[1] + 5)
    wide[:, 3:-2] = rows
    return wide[:, 3:-2]
