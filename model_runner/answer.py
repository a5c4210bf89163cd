"""The answer in a reasoning text: the last ``\\boxed{}``, else what follows the last "final answer" or "answer".

The order is that of the published evaluation (August 2026); here the answer keeps its case, because it is shown.
"""

import re
from collections.abc import Iterator

BOXED = "\\boxed{"
# "answer" alone is a common word, so it needs an "is" or a colon; "final answer" does not.
PHRASE = re.compile(r"\b(?:final\s+answer\b[\s*_`]*(?:is\b|:|=)?|answer\b[\s*_`]*(?:is\b|:|=))[\s:*_`]*", re.IGNORECASE)
MARKUP = " \t*_`$\"'"
TRAILING = MARKUP + ".,;:!"


def extract_answer(text: str) -> str | None:
    """The answer, or None if the text names none."""
    found = find_answer(text)
    return text[found] if found else None


def find_answer(text: str) -> slice | None:
    """Where the answer stands in the text."""
    return _last_boxed(text) or _last_phrase(text)


def _last_boxed(text: str) -> slice | None:
    """Content of the last complete box that holds something, braces inside it balanced."""
    at = text.rfind(BOXED)
    while at >= 0:
        begin = at + len(BOXED)
        depth = 1
        for offset, character in enumerate(text[begin:]):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                content = text[begin : begin + offset]
                if content.strip():
                    return slice(begin + _num_left(content, content.lstrip()), begin + len(content.rstrip()))
                break
        at = text.rfind(BOXED, 0, at)
    return None


def _last_phrase(text: str) -> slice | None:
    """The rest of its line; a line with two phrases gives that of the second."""
    return next(_phrases(text), None)


def _phrases(text: str) -> Iterator[slice]:
    """What follows each phrase, the last first; never nothing."""
    for phrase in reversed(list(PHRASE.finditer(text))):
        line = text[phrase.end() :].partition("\n")[0]
        kept = line.strip().rstrip(TRAILING)
        answer = kept.lstrip(MARKUP)
        if answer:
            begin = phrase.end() + _num_left(line, line.lstrip()) + _num_left(kept, answer)
            yield slice(begin, begin + len(answer))


def _num_left(text: str, rest: str) -> int:
    """How many characters were taken off the beginning."""
    return len(text) - len(rest)
