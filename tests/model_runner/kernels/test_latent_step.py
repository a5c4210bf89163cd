"""Inject and commit by hand, for each implementation: which rows are read and written, and which are left alone."""

import sys

import pytest
import torch

from contracts.manifest import BlockRule
from model_runner.kernels.latent_step import LatentState, decide, host, latent_step, reference
from tests.model_runner.kernels.cases import HAS_TRITON, HIDDEN, RULES, ints, make_state, on_cpu, rows
from tests.model_runner.simulator import END, EOS, PAD, START, A, make_spec


@on_cpu
class TestInject:
    def test_a_latent_gets_the_row_of_the_position_before(self, implementation: str) -> None:
        """Both in the middle of a block of the cache and at its beginning, where the row is another one."""
        inject, *_ = latent_step(implementation)
        state = make_state(block_size=2)
        state.feedback_BD[5], state.phase_B[5] = 7.0, 1
        state.feedback_BD[6], state.phase_B[6] = 8.0, 2
        table = ints(5, 6, 0).expand(2, -1)
        embeds = rows(0.5, 0.25)
        phase = inject(ints(PAD, PAD), embeds, ints(3, 4), table, ints(12, 13), state, make_spec())
        assert embeds.tolist() == rows(7.0, 8.0).tolist()  # position 2 reads block 0 of its table, position 3 block 1
        assert phase.tolist() == [2, 3]

    def test_ordinary_tokens_keep_their_embedding(self, implementation: str) -> None:
        inject, *_ = latent_step(implementation)
        state = make_state(block_size=2)  # every row says: inside a block
        embeds, table = rows(1, 2, 3, 4), ints(1).expand(4, 1)
        phase = inject(ints(START, END, A, EOS), embeds, ints(2, 2, 2, 2), table, ints(3, 3, 3, 3), state, make_spec())
        assert embeds.tolist() == rows(1, 2, 3, 4).tolist()
        assert phase.tolist() == [1, 0, 0, 0]

    def test_position_0_has_nothing_before_it(self, implementation: str) -> None:
        inject, *_ = latent_step(implementation)
        embeds, table = rows(1, 2), ints(0, 0)[:, None]
        phase = inject(ints(PAD, START), embeds, ints(1, 1), table, ints(0, 0), make_state(), make_spec())
        assert embeds.tolist() == rows(1, 2).tolist()
        assert phase.tolist() == [0, 1]

    def test_a_stray_pad_is_a_token_like_any_other(self, implementation: str) -> None:
        inject, *_ = latent_step(implementation)
        state = make_state()
        state.phase_B[0], state.phase_B[1] = 0, 4  # outside a block; after K pads
        embeds, table = rows(1, 2), ints(0, 1)[:, None]
        phase = inject(ints(PAD, PAD), embeds, ints(2, 2), table, ints(1, 3), state, make_spec(size=3))
        assert embeds.tolist() == rows(1, 2).tolist()
        assert phase.tolist() == [0, 0]

    def test_phases_lie_where_a_graph_finds_them(self, implementation: str) -> None:
        """No new buffer: what is returned is the head of the one of the state, and the rest of it is left alone."""
        inject, *_ = latent_step(implementation)
        state = make_state()
        state.step_phase_R.fill_(9)
        phase = inject(ints(A, START), rows(1, 2), ints(1, 1), ints(0, 1)[:, None], ints(0, 2), state, make_spec())
        assert phase.data_ptr() == state.step_phase_R.data_ptr()
        assert state.step_phase_R.tolist() == [0, 1] + [9] * 6

    def test_padded_requests_do_nothing(self, implementation: str) -> None:
        """Whatever stands in their row of the batch: nothing, or what an earlier request left there."""
        inject, commit, *_ = latent_step(implementation)
        state = make_state()
        before = state.feedback_BD.clone(), state.phase_B.clone()
        ids, embeds, table = ints(PAD, PAD, START), rows(1, 2, 3), ints(0, 7, 7)[:, None]
        phase = inject(ids, embeds, ints(0, 2, 2), table, ints(-1, -1, -1), state, make_spec())
        commit(rows(5, 6, 7), phase, ints(-1, -1, -1), state)
        assert embeds.tolist() == rows(1, 2, 3).tolist()
        assert phase.tolist() == [0, 0, 0]
        assert torch.equal(state.feedback_BD[:8].nan_to_num(-1), before[0][:8].nan_to_num(-1))
        assert state.phase_B[:8].tolist() == before[1][:8].tolist()
        assert state.phase_B[state.nowhere] == 0  # the row of what is before position 0 stays as it was


@on_cpu
class TestCommit:
    def test_a_slot_says_which_row(self, implementation: str) -> None:
        _, commit, *_ = latent_step(implementation)
        state = make_state(num_blocks=4, block_size=4)
        commit(rows(1, 2, 3), ints(0, 1, 3), torch.tensor([0, 7, 12]), state)
        assert state.feedback_BD[:4, 0].nan_to_num(-1).tolist() == [1, 2, -1, 3]
        assert state.phase_B[:4].tolist() == [0, 1, 2, 3]
        assert state.request_phase_R[:3].tolist() == [0, 1, 3]

    def test_what_is_not_kept_is_not_written(self, implementation: str) -> None:
        _, commit, *_ = latent_step(implementation)
        state = make_state(num_blocks=4, block_size=4)
        kept, last = torch.tensor([True, False, True, True]), torch.tensor([0, 3])
        commit(rows(1, 2, 3, 4), ints(5, 6, 7, 8), torch.tensor([0, 4, -1, 13]), state, kept, last)
        assert state.phase_B[:4].tolist() == [5, 2, 2, 8]
        assert state.feedback_BD[:4, 0].nan_to_num(-1).tolist() == [1, -1, -1, 4]
        assert state.phase_B[state.nowhere] == 0
        assert state.feedback_BD[state.nowhere].tolist() == [0] * HIDDEN

    def test_the_phase_of_a_request_is_that_of_its_last_token(self, implementation: str) -> None:
        """Whether or not that token is kept or has a slot, and with more requests than tokens: padded ones."""
        _, commit, *_ = latent_step(implementation)
        state = make_state(num_blocks=4, block_size=4)
        state.request_phase_R.fill_(9)
        kept, last = torch.tensor([True, False, False]), torch.tensor([2, 0, 1, 1, 2])
        commit(rows(1, 2, 3), ints(5, 6, 7), torch.tensor([0, 4, -1]), state, kept, last)
        assert state.request_phase_R.tolist() == [7, 5, 6, 6, 7, 9, 9, 9]


def test_the_implementation_asked_for_is_the_one_that_runs() -> None:
    assert latent_step("reference") == (reference.inject, reference.commit, reference.decide, reference.mask_logits)
    assert latent_step("host") == (host.inject, host.commit, host.decide, host.mask_logits)
    assert host.inject is not reference.inject
    if HAS_TRITON:
        from model_runner.kernels.latent_step import kernel

        assert latent_step("triton") == (kernel.inject, kernel.commit, reference.decide, reference.mask_logits)
        assert kernel.inject is not reference.inject
        assert kernel.commit is not reference.commit


def test_there_is_no_fallback_where_triton_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "model_runner.kernels.latent_step.kernel", raising=False)
    monkeypatch.delattr("model_runner.kernels.latent_step.kernel", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed, where it is
    with pytest.raises(ImportError, match="triton"):
        latent_step("triton")


@pytest.mark.parametrize("rule", RULES)
def test_nothing_looks_at_the_data(rule: BlockRule) -> None:
    """A tensor on the meta device has none: an op whose shape depends on data, or a host sync, raises here."""
    inject, commit = reference.inject, reference.commit
    state = LatentState.allocate(
        num_blocks=8, block_size=2, max_requests=4, hidden_size=HIDDEN, dtype=torch.float32, device="meta"
    )
    spec = make_spec(rule=rule)
    ids, lengths, slots = (torch.zeros(3, dtype=torch.int32, device="meta") for _ in range(3))
    table = torch.zeros(3, 4, dtype=torch.int32, device="meta")
    embeds = torch.zeros(3, HIDDEN, device="meta")
    phase = inject(ids, embeds, lengths, table, slots, state, spec)
    commit(embeds, phase, slots, state)
    commit(embeds, phase, slots, state, slots > 0, ids.long())
    chosen = decide(ids, phase, spec)
    assert (embeds.shape, phase.shape, chosen.shape) == ((3, HIDDEN), (3,), (3,))
    with pytest.raises((NotImplementedError, RuntimeError)):
        embeds[phase > 0]


@pytest.mark.parametrize("rule", RULES)
def test_a_step_is_one_graph(rule: BlockRule) -> None:
    """No break, so no branch on what a tensor holds; and what is traced does what is not traced does."""
    spec = make_spec(rule=rule)

    def step(state: LatentState, ids: torch.Tensor, embeds: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        phase = reference.inject(ids, embeds, slots % 4 + 1, ints(0, 1, 2)[:, None], slots, state, spec)
        reference.commit(embeds + 1, phase, slots, state)
        return decide(ids, state.request_phase_R[:3], spec)

    traced = torch.compile(step, fullgraph=True, backend="eager")
    outcomes = []
    for run in (step, traced):
        state, embeds = make_state(block_size=4), rows(1, 2, 3)
        state.feedback_BD[:3] = rows(7, 8, 9)
        chosen = run(state, ints(PAD, START, A), embeds, torch.tensor([1, 6, -1]))
        outcomes.append((chosen.tolist(), embeds.tolist(), state.phase_B[:8].tolist()))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1] == rows(7, 2, 3).tolist()
