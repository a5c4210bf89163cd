"""The rule of a block, wherever its state lies: phases and decisions against a simulator of one token at a time."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.manifest import BlockRule, LatentSpec
from model_runner.kernels.latent_step import decide, host, is_inner_pad, next_phase
from tests.model_runner.kernels.cases import RULES, ints, sequences
from tests.model_runner.simulator import END, EOS, PAD, START, A, B, Block, make_spec, read_all


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

    @settings(deadline=None)
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
        """Decide, feed, decide, …: the loop of an engine. The host's rule says the same at every step."""
        phase, emitted = ints(0), []
        for choice in chosen:
            token = decide(torch.tensor([choice]), phase, spec)
            assert host.decide(torch.tensor([choice]), phase, spec).tolist() == token.tolist()
            phase = next_phase(token, phase, spec)
            emitted.append(int(token))
        return emitted

    @settings(deadline=None)
    @given(chosen=sequences, size=st.integers(1, 4), rule=st.sampled_from(RULES))
    def test_as_the_simulator(self, chosen: list[int], size: int, rule: BlockRule) -> None:
        block, expected = Block(size), []
        for choice in chosen:
            expected.append(block.decide(choice, rule))
            block.read(expected[-1])
        assert self.answer(chosen, make_spec(size, rule)) == expected

    @settings(deadline=None)
    @given(chosen=sequences, size=st.integers(1, 4))
    def test_a_fixed_block_has_k_pads_whatever_is_chosen(self, chosen: list[int], size: int) -> None:
        text = [token for token in chosen if token not in (PAD, END)]  # masked outside, as the rule says
        emitted = self.answer(text, make_spec(size, "fixed"))
        after = [emitted[at + 1 : at + 2 + size] for at, token in enumerate(emitted) if token == START]
        for block in after:
            assert block == ([PAD] * size + [END])[: len(block)]

    @settings(deadline=None)
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
    @pytest.mark.parametrize("decide", [decide, host.decide], ids=["reference", "host"])
    def test_rows_are_decided_apart_and_keep_their_dtype(
        self, rule: BlockRule, dtype: torch.dtype, decide: Callable[..., torch.Tensor]
    ) -> None:
        chosen = torch.tensor([A, A, A, END, START], dtype=dtype)
        got = decide(chosen, ints(0, 1, 4, 0, 0), make_spec(size=3, rule=rule))
        assert got.tolist() == [A, PAD, END, END, START]
        assert got.dtype == dtype
