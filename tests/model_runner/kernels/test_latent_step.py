"""The latent step against a simulator that reads one token at a time."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.manifest import BlockRule, LatentSpec
from model_runner.kernels.latent_step import LatentState, decide, is_inner_pad, next_phase
from model_runner.kernels.latent_step.reference import commit, inject
from tests.model_runner.simulator import END, EOS, PAD, START, TOKENS, A, B, Block, make_spec, read_all

HIDDEN = 4
RULES: tuple[BlockRule, ...] = ("learned", "fixed")
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


class TestNextPhase:
    @pytest.mark.parametrize(
        ("ids", "phases"),
        [
            ([A, B, EOS], [0, 0, 0]),
            ([START, PAD, PAD, PAD, END, A], [1, 2, 3, 4, 0, 0]),
            ([START, END, PAD], [1, 0, 0]),  # closed at once; the pad after it is a stray one
            ([START, PAD, START, PAD], [1, 2, 1, 2]),  # restart
            ([START, START, PAD], [1, 1, 2]),
            ([START, PAD, PAD, PAD, START, PAD], [1, 2, 3, 4, 1, 2]),  # restart instead of the forced END
            ([START, PAD, PAD, PAD, PAD, PAD], [1, 2, 3, 4, 0, 0]),  # no fourth latent with K = 3
            ([START, PAD, A, PAD], [1, 2, 0, 0]),
            ([PAD, END, START], [0, 0, 1]),  # pads and ENDs outside a block open nothing
        ],
    )
    def test_by_hand(self, ids: list[int], phases: list[int]) -> None:
        phase, got = ints(0), []
        for token in ids:
            phase = next_phase(ints(token), phase, make_spec(size=3))
            got.append(int(phase))
        assert got == phases

    @given(ids=sequences, size=st.integers(1, 4))
    def test_as_the_simulator(self, ids: list[int], size: int) -> None:
        spec = make_spec(size)
        phase = torch.zeros(1, dtype=torch.int32)
        for token, (is_latent, expected) in zip(ids, read_all(ids, size), strict=True):
            assert bool(is_inner_pad(ints(token), phase, spec)) is is_latent
            phase = next_phase(ints(token), phase, spec)
            assert phase.dtype == torch.int32
            assert int(phase) == expected


class TestDecide:
    @pytest.mark.parametrize(
        ("rule", "chosen", "emitted"),
        [
            ("learned", [A, START, A, B, A, A, B], [A, START, PAD, PAD, PAD, END, B]),
            ("learned", [START, EOS, EOS, EOS, EOS, EOS], [START, PAD, PAD, PAD, END, EOS]),
            ("learned", [START, END, A], [START, END, A]),
            ("learned", [START, PAD, END, PAD, A], [START, PAD, END, PAD, A]),
            ("learned", [START, A, START, A, A, A, A, B], [START, PAD, START, PAD, PAD, PAD, END, B]),
            ("learned", [START, A, A, A, START, A, END], [START, PAD, PAD, PAD, START, PAD, END]),
            ("learned", [START, A, A, A, PAD, A], [START, PAD, PAD, PAD, END, A]),
            ("fixed", [A, START, END, START, EOS, A, B], [A, START, PAD, PAD, PAD, END, B]),
            ("fixed", [START, A, A, A, START, START], [START, PAD, PAD, PAD, END, START]),
        ],
    )
    def test_a_whole_answer_by_hand(self, rule: BlockRule, chosen: list[int], emitted: list[int]) -> None:
        assert self.answer(chosen, make_spec(size=3, rule=rule)) == emitted

    @staticmethod
    def answer(chosen: list[int], spec: LatentSpec) -> list[int]:
        """Decide, feed, decide, …: the loop of an engine."""
        phase, emitted = ints(0), []
        for choice in chosen:
            token = decide(torch.tensor([choice]), phase, spec)
            phase = next_phase(token, phase, spec)
            emitted.append(int(token))
        return emitted

    @given(chosen=sequences, size=st.integers(1, 4), rule=st.sampled_from(RULES))
    def test_as_the_simulator(self, chosen: list[int], size: int, rule: BlockRule) -> None:
        block, expected = Block(size), []
        for choice in chosen:
            expected.append(block.decide(choice, rule))
            block.read(expected[-1])
        assert self.answer(chosen, make_spec(size, rule)) == expected

    @given(chosen=sequences, size=st.integers(1, 4))
    def test_a_fixed_block_has_k_pads_whatever_is_chosen(self, chosen: list[int], size: int) -> None:
        text = [token for token in chosen if token not in (PAD, END)]  # masked outside, as the rule says
        emitted = self.answer(text, make_spec(size, "fixed"))
        after = [emitted[at + 1 : at + 2 + size] for at, token in enumerate(emitted) if token == START]
        for block in after:
            assert block == ([PAD] * size + [END])[: len(block)]

    @given(chosen=sequences, size=st.integers(1, 4), rule=st.sampled_from(RULES))
    def test_the_end_of_the_text_never_comes_inside_a_block(
        self, chosen: list[int], size: int, rule: BlockRule
    ) -> None:
        block = Block(size)
        for token in self.answer(chosen, make_spec(size, rule)):
            assert token != EOS or block.pads is None
            block.read(token)

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
    def test_rows_are_decided_apart_and_keep_their_dtype(self, rule: BlockRule, dtype: torch.dtype) -> None:
        chosen = torch.tensor([A, A, A, END, START], dtype=dtype)
        got = decide(chosen, ints(0, 1, 4, 0, 0), make_spec(size=3, rule=rule))
        assert got.tolist() == [A, PAD, END, END, START]
        assert got.dtype == dtype


class TestInject:
    def test_a_latent_gets_the_row_of_the_position_before(self) -> None:
        """Both in the middle of a block of the cache and at its beginning, where the row is another one."""
        state = make_state(block_size=2)
        state.feedback_BD[5], state.phase_B[5] = 7.0, 1
        state.feedback_BD[6], state.phase_B[6] = 8.0, 2
        table = ints(5, 6, 0).expand(2, -1)
        embeds, phase = inject(ints(PAD, PAD), rows(0.5, 0.25), ints(3, 4), table, state, make_spec())
        assert embeds.tolist() == rows(7.0, 8.0).tolist()  # position 2 reads block 0 of its table, position 3 block 1
        assert phase.tolist() == [2, 3]

    def test_ordinary_tokens_keep_their_embedding(self) -> None:
        state = make_state(block_size=2)  # every row says: inside a block
        given_embeds = rows(1, 2, 3, 4)
        embeds, phase = inject(
            ints(START, END, A, EOS), given_embeds, ints(2, 2, 2, 2), ints(1).expand(4, 1), state, make_spec()
        )
        assert embeds.tolist() == given_embeds.tolist()
        assert phase.tolist() == [1, 0, 0, 0]

    def test_position_0_has_nothing_before_it(self) -> None:
        state = make_state()
        embeds, phase = inject(ints(PAD, START), rows(1, 2), ints(1, 1), ints(0, 0)[:, None], state, make_spec())
        assert embeds.tolist() == rows(1, 2).tolist()
        assert phase.tolist() == [0, 1]

    def test_a_stray_pad_is_a_token_like_any_other(self) -> None:
        state = make_state()
        state.phase_B[0], state.phase_B[1] = 0, 4  # outside a block; after K pads
        embeds, phase = inject(ints(PAD, PAD), rows(1, 2), ints(2, 2), ints(0, 1)[:, None], state, make_spec(size=3))
        assert embeds.tolist() == rows(1, 2).tolist()
        assert phase.tolist() == [0, 0]

    def test_padded_requests_do_nothing(self) -> None:
        state = make_state()
        before = state.feedback_BD.clone(), state.phase_B.clone()
        embeds, phase = inject(ints(PAD, PAD), rows(1, 2), ints(0, 0), ints(0, 99)[:, None], state, make_spec())
        commit(rows(5, 6), phase, ints(-1, -1), None, state)
        assert embeds.tolist() == rows(1, 2).tolist()
        assert phase.tolist() == [0, 0]
        assert torch.equal(state.feedback_BD[:8].nan_to_num(-1), before[0][:8].nan_to_num(-1))
        assert state.phase_B[:8].tolist() == before[1][:8].tolist()
        assert state.phase_B[state.nowhere] == 0  # the row of what is before position 0 stays as it was


class TestCommit:
    def test_a_slot_says_which_row(self) -> None:
        state = make_state(num_blocks=4, block_size=4)
        commit(rows(1, 2, 3), ints(0, 1, 3), torch.tensor([0, 7, 12]), None, state)
        assert state.feedback_BD[:4, 0].nan_to_num(-1).tolist() == [1, 2, -1, 3]
        assert state.phase_B[:4].tolist() == [0, 1, 2, 3]

    def test_what_is_not_kept_is_not_written(self) -> None:
        state = make_state(num_blocks=4, block_size=4)
        kept = torch.tensor([True, False, True, True])
        commit(rows(1, 2, 3, 4), ints(5, 6, 7, 8), torch.tensor([0, 4, -1, 13]), kept, state)
        assert state.phase_B[:4].tolist() == [5, 2, 2, 8]
        assert state.feedback_BD[:4, 0].nan_to_num(-1).tolist() == [1, -1, -1, 4]
        assert state.phase_B[state.nowhere] == 0
        assert state.feedback_BD[state.nowhere].tolist() == [0] * HIDDEN


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(sequences.filter(bool), min_size=1, max_size=4),
    size=st.integers(1, 3),
    block_size=st.integers(1, 4),
    rng=st.randoms(use_true_random=False),
)
def test_a_run_of_decode_steps_as_the_simulator(
    requests: list[list[int]], size: int, block_size: int, rng: random.Random
) -> None:
    """Requests move at their own pace, in any order, with padded rows between them, on scattered blocks."""
    width = -(-24 // block_size)
    blocks = list(range(len(requests) * width))
    rng.shuffle(blocks)
    tables = [blocks[i * width : (i + 1) * width] for i in range(len(requests))]
    state = make_state(num_blocks=len(blocks), block_size=block_size)
    spec = make_spec(size)
    expected = [read_all(ids, size) for ids in requests]
    hidden: list[list[float]] = [[] for _ in requests]
    marker = 0.0
    while any(len(hidden[r]) < len(ids) for r, ids in enumerate(requests)):
        open_ones = [r for r, ids in enumerate(requests) if len(hidden[r]) < len(ids)]
        batch: list[int | None] = [*rng.sample(open_ones, rng.randint(1, len(open_ones)))]
        batch += [None] * rng.randint(0, 2)
        at = [len(hidden[r]) if r is not None else 0 for r in batch]
        ids = ints(*(requests[r][p] if r is not None else PAD for r, p in zip(batch, at, strict=True)))
        lengths = ints(*(p + 1 if r is not None else 0 for r, p in zip(batch, at, strict=True)))
        table = torch.tensor([tables[r] if r is not None else [0] * width for r in batch], dtype=torch.int32)
        slots = torch.tensor(
            [
                tables[r][p // block_size] * block_size + p % block_size if r is not None else -1
                for r, p in zip(batch, at, strict=True)
            ]
        )
        plain = rows(*(-1.0 - i for i in range(len(batch))))
        embeds, phase = inject(ids, plain, lengths, table, state, spec)
        markers = [marker + i for i in range(len(batch))]
        marker += len(batch)
        commit(rows(*markers), phase, slots, None, state)
        for row, (r, p) in enumerate(zip(batch, at, strict=True)):
            is_latent, after = expected[r][p] if r is not None else (False, 0)
            fed = hidden[r][p - 1] if is_latent else -1.0 - row
            assert embeds[row].tolist() == [fed] * HIDDEN
            assert int(phase[row]) == after
            if r is not None:
                hidden[r].append(markers[row])


@pytest.mark.parametrize("rule", RULES)
def test_nothing_looks_at_the_data(rule: BlockRule) -> None:
    """A tensor on the meta device has none: an op whose shape depends on data, or a host sync, raises here."""
    state = LatentState.allocate(
        num_blocks=8, block_size=2, max_requests=4, hidden_size=HIDDEN, dtype=torch.float32, device="meta"
    )
    spec = make_spec(rule=rule)
    ids, lengths, slots = (torch.zeros(3, dtype=torch.int32, device="meta") for _ in range(3))
    table = torch.zeros(3, 4, dtype=torch.int32, device="meta")
    embeds, phase = inject(ids, torch.zeros(3, HIDDEN, device="meta"), lengths, table, state, spec)
    commit(embeds, phase, slots, None, state)
    commit(embeds, phase, slots, slots > 0, state)
    chosen = decide(ids, phase, spec)
    assert (embeds.shape, phase.shape, chosen.shape) == ((3, HIDDEN), (3,), (3,))
    with pytest.raises((NotImplementedError, RuntimeError)):
        embeds[phase > 0]
