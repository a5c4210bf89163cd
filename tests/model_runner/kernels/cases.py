"""What the tests of the latent step share: which implementations there are here, states as after much use, tokens."""

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import strategies as st

from contracts.manifest import BlockRule
from model_runner.kernels.latent_step import LatentState
from tests.model_runner.simulator import END, EOS, PAD, START, A, B

HIDDEN = 4
RULES: tuple[BlockRule, ...] = ("learned", "fixed")

HAS_TRITON = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Compiled kernels read the memory of a GPU, interpreted ones that of the host.
TRITON_DEVICE = "cpu" if INTERPRETED else "cuda"
CAN_RUN_TRITON = HAS_TRITON and (INTERPRETED or torch.cuda.is_available())
# Tests of state on the CPU: Triton can take part where it is interpreted.
on_cpu = pytest.mark.parametrize(
    "implementation",
    [
        "reference",
        "host",
        pytest.param(
            "triton",
            marks=pytest.mark.skipif(
                not (HAS_TRITON and INTERPRETED), reason="needs triton and TRITON_INTERPRET=1: make test-kernels"
            ),
        ),
    ],
)

# An interpreted program takes milliseconds. Where Triton is interpreted, the definition is tried elsewhere as well.
EXAMPLES = 40 if INTERPRETED else 120

TEXT = (A, B, EOS)
TOKENS = (*TEXT, PAD, START, END)
sequences = st.lists(st.sampled_from(TOKENS + (PAD,) * 4 + (START,)), max_size=24)


def make_state(*, num_blocks: int = 8, block_size: int = 2, max_requests: int = 8) -> LatentState:
    """As after much use: every row holds something, and NaN where nothing may ever be read."""
    state = LatentState.allocate(
        num_blocks=num_blocks,
        block_size=block_size,
        max_requests=max_requests,
        hidden_size=HIDDEN,
        dtype=torch.float32,
        device="cpu",
    )
    state.phase_B[:num_blocks] = 2
    state.feedback_BD[:num_blocks] = float("nan")
    return state


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def rows(*values: float) -> torch.Tensor:
    """One hidden state or embedding per value."""
    return torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, HIDDEN).clone()
