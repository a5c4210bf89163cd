"""Rows whose elements lie beyond 2^31: as many as a GPU with a large KV cache has.

The memory is a file of holes: what is not written to takes no room. So on a CPU only.
"""

from pathlib import Path

import pytest
import torch

from model_runner.kernels.latent_step import LatentState, latent_step
from tests.model_runner.kernels.cases import on_cpu
from tests.model_runner.simulator import PAD, A, make_spec

LIMIT = 2**31
HIDDEN_SIZE = 8192
NUM_BLOCKS = LIMIT // HIDDEN_SIZE + 2
FAR = NUM_BLOCKS - 1  # its elements begin beyond the limit


@pytest.fixture
def reserved(tmp_path: Path) -> torch.Tensor:
    """3 x 2^31 zeros of 2 bytes."""
    return torch.from_file(str(tmp_path / "reserved"), shared=True, size=3 * LIMIT, dtype=torch.bfloat16)


@on_cpu
def test_rows_beyond_2_to_the_31(implementation: str, reserved: torch.Tensor) -> None:
    """State rows of a large cache, and rows of embeddings and hidden states that are far from each other."""
    inject, commit, *_ = latent_step(implementation)
    feedback_BD = reserved[: (NUM_BLOCKS + 2) * HIDDEN_SIZE].view(-1, HIDDEN_SIZE)
    apart = LIMIT // 2 + 8  # row 2 begins beyond the limit
    rest = reserved[feedback_BD.numel() :]
    rows_RD = rest.as_strided((3, HIDDEN_SIZE), (apart, 1))
    state = LatentState(
        feedback_BD=feedback_BD,
        phase_B=torch.zeros(NUM_BLOCKS + 2, dtype=torch.int32),
        step_phase_R=torch.zeros(4, dtype=torch.int32),
        request_phase_R=torch.zeros(4, dtype=torch.int32),
        block_size=16,
    )
    rows_RD[0], rows_RD[1], rows_RD[2] = 1.0, 2.0, 3.0
    slots_R = torch.tensor([3 * 16, -1, FAR * 16 + 2])
    commit(rows_RD, torch.tensor([0, 0, 1], dtype=torch.int32), slots_R, state)
    assert state.feedback_BD[FAR].eq(3.0).all()
    assert state.feedback_BD[3].eq(1.0).all()
    assert state.phase_B[FAR] == 1

    state.feedback_BD[FAR] = 7.0
    lengths_R = torch.tensor([1, 0, 4])
    table_RB = torch.tensor([[3], [0], [FAR]], dtype=torch.int32)
    phase_R = inject(torch.tensor([A, PAD, PAD]), rows_RD, lengths_R, table_RB, slots_R, state, make_spec())
    assert phase_R.tolist() == [0, 0, 2]
    assert rows_RD[:, 0].tolist() == [1.0, 2.0, 7.0]
    assert rows_RD[2].eq(7.0).all()
