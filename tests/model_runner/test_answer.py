"""The answer in a text, by hand."""

import pytest

from model_runner.answer import extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # The last box, braces inside it balanced.
        (r"\boxed{RRDD}", "RRDD"),
        (r"so \boxed{A}. No: \boxed{B}!", "B"),
        (r"\boxed{ 4 }", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{yes {or} no}} then }", r"\text{yes {or} no}"),
        ("\\boxed{two\nlines}", "two\nlines"),
        (r"$\boxed{x}$", "x"),
        (r"\boxed{Ja, das 🙂}", "Ja, das 🙂"),
        # An unclosed box is none: what was complete before counts.
        (r"\boxed{A} and \boxed{B", "A"),
        (r"\boxed{A", None),
        (r"\boxed{\frac{1}{2}", None),
        # A box wins over a phrase, wherever each stands.
        (r"\boxed{A} The final answer is B.", "A"),
        # Else the last phrase.
        ("The answer is B.", "B"),
        ("the ANSWER is: B", "B"),
        ("Final answer: RRDD", "RRDD"),
        ("answer = 42", "42"),
        ("Answer: A\nWait.\nAnswer: B\n", "B"),
        ("The final answer is 3.5.", "3.5"),
        ("The answer is A. I am sure the final answer is C.", "C"),
        ("An unclosed \\boxed{A, but the answer is B", "B"),
        # Markdown around it is no part of it.
        ("**Final Answer:** **B**", "B"),
        ("**Answer**: `RRDD`.", "RRDD"),
        ("### Final answer\n\nAnswer: _left_", "left"),
        ("Answer:\nB", "B"),
        # "final answer" needs no colon; an empty box names nothing.
        ("Final answer RRDD", "RRDD"),
        ("Final Answer\nRRDD", "RRDD"),
        (r"\boxed{A} so \boxed{}", "A"),
        ('The answer is "yes".', "yes"),
        ("The answer is $42$.", "42"),
        # Nothing.
        ("", None),
        ("I do not know.", None),
        ("These answers are long: none", None),
        ("It was answered: no", None),
        ("Answer:", None),
        ("Answer: **", None),
        ("The answer depends.", None),
        ("Answer: A\nAnswer:", "A"),
        (r"\boxed{}", None),
        (r"\boxed{} so the answer is B", "B"),
    ],
)
def test_by_hand(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_many_open_boxes_take_no_time() -> None:
    assert extract_answer("\\boxed{" * 500) is None
