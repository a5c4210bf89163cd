"""Tokens of the answer, by hand: a vocabulary of single bytes and a few words."""

import pytest

from model_runner.answer_tokens import count_answer_tokens
from model_runner.vocabulary import Vocabulary

START, PAD, END, EOS = 1, 2, 3, 4
WORDS = {10: b"so ", 11: b"\\boxed", 12: b"{", 13: b"RR", 14: b"DD", 15: b"}", 16: b"{R", 17: b"Hi", 18: "✓".encode()}
VOCABULARY = Vocabulary(WORDS)


@pytest.mark.parametrize(
    ("ids", "texts", "count"),
    [
        ([10, 11, 12, 13, 14, 15, EOS], ["so \\boxed{RRDD}"], 2),
        # A token that only begins or ends in the answer is one of its tokens.
        ([11, 16, 13, 14, 15], ["\\boxed{RRRDD}"], 3),
        # Latents and their marks have no bytes and are none of it.
        ([10, START, PAD, PAD, END, 11, 12, 13, 15], ["so ", "", "\\boxed{RR}"], 1),
        # The box counts, not the same letters elsewhere.
        ([13, 14, 11, 12, 13, 15, 13], ["RRDD\\boxed{RR}RR"], 1),
        # Bytes, not characters.
        ([18, 18, 11, 12, 13, 15], ["✓✓\\boxed{RR}"], 1),
        # Where no answer is named, it is the last step, if that is text.
        ([10, START, PAD, END, 17, 17], ["so ", "", "HiHi"], 2),
        ([10, 17, START, PAD], ["so Hi", ""], 0),
        ([], [], 0),
    ],
)
def test_by_hand(ids: list[int], texts: list[str], count: int) -> None:
    assert count_answer_tokens(ids, VOCABULARY, texts) == count
