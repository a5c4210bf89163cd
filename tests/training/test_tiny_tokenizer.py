"""The tokenizer: nothing is lost, answers cost one token a move, the merges are the same every time."""

import pytest

from contracts.mazes import QUESTION
from tests.training.conftest import Setup
from training.grids.text import sentences
from training.maze_text import answer_box
from training.tiny_tokenizer import SPECIAL_TOKENS, build_tokenizer


@pytest.mark.parametrize("text", [QUESTION, "Ünder 日本 🙂\n\t ", "RRDD", "\\boxed{", "a\x00b", "  two  spaces  ", ""])
def test_any_text_comes_back(setup: Setup, text: str) -> None:
    assert setup.tokenizer.decode(setup.tokenizer.encode(text).ids) == text


def test_an_answer_costs_one_token_a_move(setup: Setup) -> None:
    assert setup.tokenizer.encode(answer_box("RRDDUL")).tokens == ["\\boxed{", *"RRDDUL", "}"]


def test_the_standard_question_is_short(setup: Setup) -> None:
    assert len(setup.tokenizer.encode(QUESTION).ids) <= 10


def test_ids_fit_the_vocabulary_and_every_byte_has_one(setup: Setup) -> None:
    vocabulary = setup.tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= setup.recipe.model.vocab_size
    every_byte = bytes(range(256)).decode("latin-1")
    assert setup.tokenizer.decode(setup.tokenizer.encode(every_byte).ids) == every_byte


def test_special_tokens_are_one_id_each(setup: Setup) -> None:
    for token in SPECIAL_TOKENS:
        assert setup.tokenizer.encode(token).tokens == [token]


def test_the_same_sentences_give_the_same_tokenizer(setup: Setup) -> None:
    again = build_tokenizer(sentences(), setup.recipe.model.vocab_size)
    assert again.to_str() == setup.tokenizer.to_str()
