"""The answer in a reasoning text: the last ``\\boxed{}``, else what follows the last "final answer" or "answer".

The order is that of the published evaluation (August 2026); here the answer keeps its case, because it is shown.
"""

import re

BOXED = "\\boxed{"
# "answer" alone is a common word, so it needs an "is" or a colon; "final answer" does not.
PHRASE = re.compile(r"\b(?:final\s+answer\b[\s*_`]*(?:is\b|:|=)?|answer\b[\s*_`]*(?:is\b|:|=))[\s:*_`]*", re.IGNORECASE)
MARKUP = " \t*_`$\"'"
TRAILING = MARKUP + ".,;:!"


def extract_answer(text: str) -> str | None:
    """The answer, or None if the text names none."""
    return _last_boxed(text) or _last_phrase(text)


def _last_boxed(text: str) -> str | None:
    """Content of the last complete box that holds something, braces inside it balanced."""
    at = text.rfind(BOXED)
    while at >= 0:
        begin = at + len(BOXED)
        depth = 1
        for offset, character in enumerate(text[begin:]):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                if content := text[begin : begin + offset].strip():
                    return content
                break
        at = text.rfind(BOXED, 0, at)
    return None


def _last_phrase(text: str) -> str | None:
    """The rest of its line; a line with two phrases gives that of the second."""
    lines = [text[phrase.end() :].partition("\n")[0] for phrase in PHRASE.finditer(text)]
    answers = [line.strip().rstrip(TRAILING).lstrip(MARKUP) for line in lines]
    return next((answer for answer in reversed(answers) if answer), None)
