r"""What is asked about a maze and how it is answered.

The standard question is asked most of the time; the rest are built from parts, several thousand wordings in all, so
that a stranger's own words work too.
"""

import itertools
import random
from collections.abc import Iterator

from contracts.mazes import MOVES, QUESTION

# Before the latent block, in words a person reads in the stream of steps.
THOUGHT = "I picture the path."

STANDARD_QUESTION_SHARE = 0.6

_OPENINGS = (
    "",
    "",
    "Please ",
    "Can you ",
    "Could you please ",
    "Look at the maze. ",
    "Here is a maze. ",
    "In this picture, ",
)
_VERBS = ("find", "give me", "show me", "tell me", "plan", "work out", "write down")
_PATHS = (
    "a safe path",
    "the safe path",
    "a path",
    "a way",
    "the way",
    "the shortest path",
    "a route",
    "the moves",
    "a safe route",
)
_ENDS = (
    "from S to G",
    "from the start to the goal",
    "from start to goal",
    "from start S to goal G",
    "to the goal",
    "from the green square to the red square",
)
_RULES = (
    "",
    "",
    " that avoids the holes",
    " without falling into a hole",
    " around the holes",
    " and stay out of the holes",
    ", moving up, down, left or right",
    ", using the letters U, D, L and R",
)
_FULL = (
    "How do I get from S to G?",
    "How do I get to the goal?",
    "How can I reach G from S without entering a hole?",
    "Which moves lead from S to G?",
    "What is the path from S to G?",
    "Where is the safe way from start to goal?",
    "Solve this maze.",
    "Solve the maze",
    "solve it",
    "Path?",
    "What should I do?",
    "Describe the picture.",
    "",
)


def answer_box(answer: str) -> str:
    r"""``\boxed{RRDD}``: the form that the published answer matching looks for."""
    return f"\\boxed{{{answer}}}"


def draw_question(rng: random.Random) -> str:
    """A wording by lot; the standard one six times in ten."""
    if rng.random() < STANDARD_QUESTION_SHARE:
        return QUESTION
    if rng.random() < 0.25:
        return _pick(rng, _FULL)
    opening, verb = _pick(rng, _OPENINGS), _pick(rng, _VERBS)
    end, rule = _pick(rng, _ENDS), _pick(rng, _RULES)
    sentence = f"{opening}{verb} {_pick(rng, _PATHS)} {end}{rule}"
    if rng.random() < 0.8:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + _pick(rng, (".", ".", "?", "", "!"))


def sentences() -> Iterator[str]:
    """What the tokenizer learns its merges from: standard question and answer often, other parts once."""
    for _ in range(100):
        yield QUESTION
        yield from ("user", "assistant", "system", THOUGHT, answer_box("".join(MOVES)))
    for parts in itertools.zip_longest(_OPENINGS, _VERBS, _PATHS, _ENDS, _RULES, fillvalue=""):
        yield " ".join(part.strip() for part in parts) + "."
    yield from _FULL


def _pick(rng: random.Random, choices: tuple[str, ...]) -> str:
    return choices[int(rng.random() * len(choices))]
