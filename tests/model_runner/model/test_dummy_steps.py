"""Steps that vLLM makes up, to warm up and to capture: they have several tokens a request, and no slots.

Model Runner V2 gives them attention metadata, so the model class takes them for prompts. They must not fail, and none
of it may reach a row that a request reads.
"""

import pytest
import torch
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step import Implementation, LatentState, latent_step
from model_runner.model.chunk import read_chunk

SPEC = LatentSpec(pad_id=0, start_id=1, end_id=2, size=4, rule="learned")  # dummy ids are 0: pads, the worst case
NUM_BLOCKS, BLOCK_SIZE, MAX_REQUESTS, HIDDEN = 7, 16, 8, 3


@pytest.fixture
def state() -> LatentState:
    """Every row is told apart, and every block of a request is inside a latent block."""
    made = LatentState.allocate(
        num_blocks=NUM_BLOCKS,
        block_size=BLOCK_SIZE,
        max_requests=MAX_REQUESTS,
        hidden_size=HIDDEN,
        dtype=torch.float32,
        device="cpu",
    )
    made.feedback_BD[:NUM_BLOCKS] = torch.arange(NUM_BLOCKS)[:, None] + 1.0
    made.phase_B[:NUM_BLOCKS] = 2
    return made


def dummy(num_requests: int, num_tokens: int) -> InputBatch:
    return InputBatch.make_dummy(num_requests, num_tokens, InputBuffers(MAX_REQUESTS, 256, torch.device("cpu")))


IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["reference", "host"])


@IMPLEMENTATIONS
@pytest.mark.parametrize("ids", ["all pads", "anything"])
@pytest.mark.parametrize(("num_requests", "num_tokens"), [(1, 1), (8, 8), (8, 13), (8, 128), (1, 200)])
def test_of_several_tokens(
    num_requests: int, num_tokens: int, ids: str, implementation: Implementation, state: LatentState
) -> None:
    commit = latent_step(implementation).commit
    batch = dummy(num_requests, num_tokens)
    if ids == "anything":  # as where vLLM profiles with random ids
        batch.input_ids.random_(0, 4, generator=torch.Generator().manual_seed(0))
    slots = torch.full((num_tokens,), -1, dtype=torch.int64)
    tables = torch.zeros(num_requests, 4, dtype=torch.int32)
    kept = state.feedback_BD[:NUM_BLOCKS].clone(), state.phase_B[:NUM_BLOCKS].clone()
    chunk = read_chunk(batch.input_ids, batch.query_start_loc, batch.seq_lens, tables, slots, state, SPEC)
    assert chunk.request_T.tolist() == sorted(chunk.request_T.tolist())
    assert len(chunk.phase_T) == num_tokens
    if ids == "all pads":  # no START was before any: nothing is fed back
        assert not chunk.inner_T.any()
    commit(torch.full((num_tokens, HIDDEN), 9.0), chunk.phase_T, slots, state, chunk.kept_T, chunk.last_R)
    assert state.feedback_BD[:NUM_BLOCKS].equal(kept[0])
    assert state.phase_B[:NUM_BLOCKS].equal(kept[1])
    assert not state.feedback_BD[state.nowhere].any()
    assert state.phase_B[state.nowhere] == 0


@IMPLEMENTATIONS
@pytest.mark.parametrize("seq_len", [1, 5, 0])
def test_of_one_token(seq_len: int, implementation: Implementation, state: LatentState) -> None:
    """What a full graph is captured with: lengths of 1, or of a whole context; padded requests have length 0."""
    inject, commit, *_ = latent_step(implementation)
    batch = dummy(MAX_REQUESTS, MAX_REQUESTS)
    slots = torch.full((MAX_REQUESTS,), -1, dtype=torch.int64)
    tables = torch.zeros(MAX_REQUESTS, 4, dtype=torch.int32)
    lengths = torch.full((MAX_REQUESTS,), seq_len, dtype=torch.int32)
    embeds = torch.full((MAX_REQUESTS, HIDDEN), 5.0)
    kept = state.feedback_BD[:NUM_BLOCKS].clone(), state.phase_B[:NUM_BLOCKS].clone()
    phase = inject(batch.input_ids, embeds, lengths, tables, slots, state, SPEC)
    assert not phase.any()
    assert (embeds == 5.0).all()
    commit(torch.full((MAX_REQUESTS, HIDDEN), 9.0), phase, slots, state)
    assert state.feedback_BD[:NUM_BLOCKS].equal(kept[0])
    assert state.phase_B[:NUM_BLOCKS].equal(kept[1])
    assert not state.request_phase_R.any()
