r"""A test for each rule of the two versions of answer matching. Expected answers are read off the rules.

Texts are those of a published checkpoint: prompt by the chat template, response, end token.
"""

import pytest

from contracts.errors import InvalidRequest
from training.answer_matching import (
    extract_answer_2026_01,
    extract_answer_2026_08,
    extract_path,
    is_match,
    normalised,
    shown_answer,
)
from training.samples import Sample

PROMPT = (
    "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
    "{question}<|im_end|>\n<|im_start|>assistant\n"
)
MAP = ((1, 0), (-1, 2))  # RD leads to the goal, DR through a hole


def sample(final_answer=None, map_desc=None):
    return Sample(
        text_input="?", images=(), steps=(), final_answer=final_answer, map_desc=map_desc, group=None, where="t.jsonl:3"
    )


def whole(response, question="How many?"):
    return PROMPT.format(question=question) + response


# Version 2026-01


@pytest.mark.parametrize("ending", ["<|im_end|>", ".<|im_end|>"])
def test_01_keeps_the_end_token_in_the_answer(ending):
    assert extract_answer_2026_01(whole(f"The answer is: 4{ending}")) == f"4{ending}"
    assert not is_match("2026-01", sample("4"), whole(f"The answer is: 4{ending}"))


def test_01_matches_if_the_end_token_is_on_another_line():
    assert extract_answer_2026_01(whole("The answer is: 4\n<|im_end|>")) == "4"
    assert is_match("2026-01", sample("4"), whole("The answer is: 4\n<|im_end|>"))


def test_01_takes_the_first_answer():
    assert extract_answer_2026_01(whole("answer is: 3\nNo, the answer is: 4\n")) == "3"


def test_01_reads_the_prompt_as_well():
    text = whole("The answer is: 4\n", question="End with 'answer is: X'")
    assert extract_answer_2026_01(text) == "X'<|im_end|>"
    assert not is_match("2026-01", sample("4"), text)


def test_01_prefers_a_final_answer_to_an_earlier_answer():
    assert extract_answer_2026_01(whole("answer: 3\nFINAL Answer: 4\n")) == "4"
    assert extract_answer_2026_01(whole("answer: 3\nfinal answer is： 5\nfinal answer: 6\n")) == "5"


def test_01_needs_a_colon():
    assert extract_answer_2026_01("the final answer is 4\nanswer: 5\n") == "5"


def test_01_does_not_know_boxes():
    assert extract_answer_2026_01("\\boxed{4}\nanswer: 5\n") == "5"


def test_01_takes_the_only_choice_of_all_words_where_there_is_no_phrase():
    assert extract_answer_2026_01(whole("Certainly yes, it does<|im_end|>")).lower() == "yes"
    assert is_match("2026-01", sample("Yes"), whole("Certainly yes, it does<|im_end|>"))
    assert is_match("2026-01", sample("false"), "B is it")


def test_01_takes_the_whole_text_where_there_are_more_choices():
    """The prompt's own "a" counts."""
    text = whole("yes<|im_end|>", question="Is this a cat?")
    assert extract_answer_2026_01(text) == text
    assert extract_answer_2026_01(" yes or no \n") == "yes or no"


def test_01_compares_as_written_but_for_yes_and_no():
    assert not is_match("2026-01", sample("cat"), "answer: Cat\n")
    assert not is_match("2026-01", sample("2"), "answer: 2.0\n")
    assert not is_match("2026-01", sample("4"), "answer: **4**\n")
    assert is_match("2026-01", sample(" cat "), "answer:  cat \n")
    for yes in ("yes", "TRUE", "A"):
        assert is_match("2026-01", sample("Yes"), f"answer: {yes}\n")
    for no in ("NO", "false", "b"):
        assert is_match("2026-01", sample("No"), f"answer: {no}\n")


# Version 2026-08


def test_08_reads_the_assistants_part_alone():
    """It is given that part; the end token, if it is there, is no part of the answer."""
    assert extract_answer_2026_08("The answer is: 4<|im_end|>") == "4"
    assert is_match("2026-08", sample("4"), "The answer is: 4<|im_end|>")


def test_08_takes_the_last_box_before_any_phrase():
    assert extract_answer_2026_08("\\boxed{3} then \\boxed{4}. Final answer: 5") == "4"


def test_08_does_not_see_a_box_with_braces_inside():
    assert extract_answer_2026_08("\\boxed{\\frac{1}{2}}. Answer: 7") == "7"


@pytest.mark.parametrize("phrase", ["final answer is ", "Final answer: ", "FINAL\nANSWER IS： ", "final answer "])
def test_08_takes_the_last_final_answer_colon_or_not(phrase):
    assert extract_answer_2026_08(f"Final answer: 3\nso {phrase}4\nanswer: 5") == "4"


def test_08_takes_the_last_answer_where_no_final_one_is():
    assert extract_answer_2026_08("answer: 3\nThe answer is: 4\n") == "4"


def test_08_needs_a_colon_after_answer_alone():
    assert extract_answer_2026_08("answer: 3\nan answer is 4\n") == "3"


def test_08_goes_on_to_answer_where_the_final_one_is_empty():
    assert extract_answer_2026_08("answer: 3\nthe final answer **") == "3"


def test_08_takes_the_only_choice_of_all_words_where_there_is_no_phrase():
    assert is_match("2026-08", sample("Yes"), "I think it is true")
    assert not is_match("2026-08", sample("Yes"), "yes and no")


def test_08_takes_the_first_line_where_nothing_else_is():
    assert extract_answer_2026_08("**Paris**.\nIndeed") == "Paris"


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("**4**", "4"),
        ("_4_", "4"),
        ("`4`", "4"),
        ("'4'", "4"),
        ("“4”", "4"),
        ("(4)", "4"),
        ("[4].", "4"),
        ("【4】", "4"),
        ("4.", "4"),
        ("4!?;:,", "4"),
        ("4。", "4"),
        ("**two cats**.", "two cats"),
        ("-4.5", "-4.5"),
        ("4<|latent_start|><|latent_pad|><|latent_end|>", "4"),
    ],
)
def test_08_strips_markdown_and_trailing_punctuation(written, answer):
    assert extract_answer_2026_08(f"answer: {written}") == answer
    assert extract_answer_2026_08(f"answer: {written}\nmore") == answer


def test_08_ignores_case():
    assert is_match("2026-08", sample("Two Cats"), "answer: two CATS")
    assert not is_match("2026-08", sample("Two Cats"), "answer: two dogs")


@pytest.mark.parametrize("written", ["2", "2.0", "2.00", " 2 ", "+2", "2e0", "**2**."])
def test_08_compares_numbers_as_numbers(written):
    assert is_match("2026-08", sample("2"), f"answer: {written}")
    assert not is_match("2026-08", sample("20"), f"answer: {written}")


def test_08_numbers_may_hold_commas_and_fractions():
    assert is_match("2026-08", sample("1000"), "answer: 1,000")
    assert is_match("2026-08", sample("0.5"), "answer: .50")
    assert normalised("2026-08", "nan") == "nan"
    assert normalised("2026-08", "inf") == "inf"


@pytest.mark.parametrize("yes", ["yes", "Yes.", "TRUE", "a", "(A)", "**true**"])
def test_08_yes_true_and_a_are_yes(yes):
    for gold in ("Yes", "true", "A"):
        assert is_match("2026-08", sample(gold), f"\\boxed{{{yes}}}")
    assert not is_match("2026-08", sample("no"), f"\\boxed{{{yes}}}")


@pytest.mark.parametrize("no", ["no", "No.", "FALSE", "b", "(B)", "**false**"])
def test_08_no_false_and_b_are_no(no):
    for gold in ("No", "false", "B"):
        assert is_match("2026-08", sample(gold), f"\\boxed{{{no}}}")
    assert not is_match("2026-08", sample("yes"), f"\\boxed{{{no}}}")


def test_08_cleans_what_it_is_compared_with():
    assert is_match("2026-08", sample("**C**."), "answer: c")


# The same text by both


def test_the_versions_disagree_where_the_rules_do():
    text = "answer: 3\nThe answer is: 4.0<|im_end|>"
    assert (extract_answer_2026_01(text), extract_answer_2026_08(text)) == ("3", "4.0")
    assert is_match("2026-01", sample("3"), text)
    assert is_match("2026-08", sample("4"), text)


# Mazes


@pytest.mark.parametrize("version", ["2026-01", "2026-08"])
def test_a_maze_is_walked_and_not_compared(version):
    maze = sample(final_answer="RRLD", map_desc=MAP)
    assert is_match(version, maze, "\\boxed{RD}")
    assert is_match(version, maze, "\\boxed{DR}, no: \\boxed{\\text{right}, \\text{down}}")
    assert not is_match(version, maze, "\\boxed{RD}, no: \\boxed{DR}")
    assert not is_match(version, maze, "I go right and down")


def test_01_finds_a_box_of_the_prompt_and_takes_the_first_phrase():
    assert extract_path("2026-01", whole("RD", question="Write \\boxed{UDLR}")) == "UDLR"
    assert extract_path("2026-01", whole("Final answer: RD<|im_end|>")) == "RD"
    assert extract_path("2026-01", whole("answer: UU\nFinal answer: RD\nfinal answer: DR<|im_end|>")) == "RD"


def test_08_takes_the_last_phrase():
    assert extract_path("2026-08", "Final answer: RD\nfinal answer: **DR**.") == "DR"
    assert extract_path("2026-08", "The answer is: right, down.") == "right, down"


def test_only_moves_directly_after_the_phrase_are_walked():
    assert extract_path("2026-08", "Final answer: RD because U is blocked").strip() == "RD"
    assert extract_path("2026-08", "Final answer: none, but try RD") == ""
    assert extract_path("2026-08", "Final answer: Rudder") == ""


def test_an_open_box_is_none():
    assert extract_path("2026-08", "\\boxed{RD") == ""


def test_a_sample_without_anything_to_judge_by_is_told():
    with pytest.raises(InvalidRequest, match=r"t\.jsonl:3: .*original_final_answer"):
        is_match("2026-08", sample(), "4")


def test_equal_answers_are_shown_equal():
    assert shown_answer("2026-08", sample("2"), "answer: 2.0") == shown_answer("2026-08", sample("2"), "\\boxed{2}")
    assert shown_answer("2026-08", sample(map_desc=MAP), "\\boxed{r, d}") == "RD"
    assert shown_answer("2026-01", sample("x"), "answer: A\n") == "yes"
