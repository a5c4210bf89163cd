r"""Whether an answer is right, by the two rules that the released code has had. Pure functions of texts.

The rules are facts of XD111ds/ILVR (``src/evaluate_deepseed.py``) and are reproduced, oddities included, because a
score is comparable only with scores by the same rule:

``2026-01``
    reads the whole decoded text, prompt and special tokens included; the first "final answer:" in it, else the first
    "answer:" (both also with "is" before the colon), to the end of the line, so that ``<|im_end|>`` on that line stays
    part of the answer. Answers are compared as they are written, but for yes, true, a and no, false, b.
``2026-08``
    reads the assistant's part; the last ``\boxed{}``, else the last "final answer" (colon or not), else the last
    "answer:". Markdown, quotes, brackets and trailing punctuation are stripped, case does not count, and numbers are
    compared as numbers.

Where neither finds a phrase, an only yes, no, true, false, a or b among all words is the answer, else the text itself.

Mazes are not compared but walked. Departure from the released code: without a box it walks nothing when the
``mathruler`` package is installed, else the letters after the first "final answer:"; here the phrase of the version is
read in both cases, and only the moves directly after it, since a whole text is no path.
"""

import math
import re
from typing import Literal, get_args

from contracts.errors import InvalidRequest
from training.samples import Sample
from training.vsp import is_success, moves_of

MatchVersion = Literal["2026-01", "2026-08"]
MATCH_VERSIONS: tuple[MatchVersion, ...] = get_args(MatchVersion)

YES, NO = frozenset({"yes", "true", "a"}), frozenset({"no", "false", "b"})
COLON = "[:：]"  # ASCII and full width
TO_LINE_END = "(.+)"
FINAL_WITH_COLON = re.compile(rf"final\s*answer\s*(?:is)?\s*{COLON}\s*{TO_LINE_END}", re.IGNORECASE)
FINAL = re.compile(rf"final\s*answer\s*(?:is)?\s*{COLON}?\s*{TO_LINE_END}", re.IGNORECASE)
PLAIN = re.compile(rf"answer\s*(?:is)?\s*{COLON}\s*{TO_LINE_END}", re.IGNORECASE)

BOX_BEGINS = "\\boxed{"
FLAT_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
SPECIAL_TOKENS = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "</s>", "<s>", "[/INST]", "[INST]"),
    *("<|latent_start|>", "<|latent_end|>", "<|latent_pad|>"),
)
BEFORE = re.compile(r"^[\s*_`'\"“‘(\[{【]+")
AFTER = re.compile(r"[\s*_`'\"”’)\]}】.。,，!！?？;；:：]+$")

MOVES_FIRST = re.compile(r"(?:(?:up|down|left|right|[udlr]+)(?![a-z])[\s,;.>→-]*)+", re.IGNORECASE)


def extract_answer_2026_01(whole_text: str) -> str:
    """The answer in prompt and response, decoded with special tokens."""
    text = whole_text.strip()
    for phrase in (FINAL_WITH_COLON, PLAIN):
        if found := phrase.search(text):
            return re.split(r"[\r\n]", found[1].strip())[0]
    return _only_choice(text) or text


def extract_answer_2026_08(assistant_text: str) -> str:
    """The answer in what the assistant said."""
    text = _without_special_tokens(assistant_text)
    if boxes := FLAT_BOX.findall(text):
        return _cleaned(boxes[-1])
    return _last_phrase(text) or _only_choice(text) or _cleaned(text)


def extract_path(version: MatchVersion, text: str) -> str:
    r"""Where a maze's moves are: in the last ``\boxed{}``, braces inside it balanced, else after the version's phrase.

    Empty if there is neither; then nothing is walked.
    """
    if box := _last_box(text):
        return box
    if version == "2026-01":
        found = FINAL_WITH_COLON.search(text) or PLAIN.search(text)
        phrase = found[1] if found else ""
    else:
        phrase = _last_phrase(_without_special_tokens(text))
    moves = MOVES_FIRST.match(BEFORE.sub("", phrase))
    return moves[0] if moves else ""


def normalised(version: MatchVersion, answer: str) -> str | float:
    """What is compared: ``yes`` or ``no``, in 2026-08 a number where it is one, else the text."""
    text = answer.strip() if version == "2026-01" else _cleaned(answer)
    if text.lower() in YES:
        return "yes"
    if text.lower() in NO:
        return "no"
    if version == "2026-01":
        return text
    number = _number(text)
    return text.lower() if number is None else number


def is_match(version: MatchVersion, sample: Sample, text: str) -> bool:
    """Whether the text answers the sample. ``text`` is the whole text for 2026-01, the assistant's part for 2026-08.

    Raises:
        InvalidRequest: the sample has neither a map nor an answer to compare with.
    """
    if sample.map_desc is not None:
        return is_success(sample.map_desc, extract_path(version, text))
    if sample.final_answer is None:
        raise InvalidRequest(
            f"{sample.where}: neither map_desc nor original_final_answer is there to judge an answer by",
            param="original_final_answer",
        )
    extract = extract_answer_2026_01 if version == "2026-01" else extract_answer_2026_08
    return normalised(version, extract(text)) == normalised(version, sample.final_answer)


def shown_answer(version: MatchVersion, sample: Sample, text: str) -> str:
    """What was found and compared or walked: two texts with the same one count as the same answer."""
    if sample.map_desc is not None:
        return moves_of(extract_path(version, text))
    extract = extract_answer_2026_01 if version == "2026-01" else extract_answer_2026_08
    return str(normalised(version, extract(text)))


def _last_phrase(text: str) -> str:
    """What follows the last "final answer", else the last "answer:", cleaned; empty if nothing does."""
    for phrase in (FINAL, PLAIN):
        if (found := phrase.findall(text)) and (answer := _cleaned(found[-1])):
            return answer
    return ""


def _only_choice(text: str) -> str:
    chosen = [word for word in re.findall("[a-z]+", text.lower()) if word in YES | NO]
    return chosen[0] if len(chosen) == 1 else ""


def _cleaned(answer: str) -> str:
    """The first line, without special tokens and what decorates or ends it."""
    line = re.split(r"[\r\n]", answer.strip())[0]
    return AFTER.sub("", BEFORE.sub("", _without_special_tokens(line)))


def _without_special_tokens(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "")
    return text.strip()


def _number(text: str) -> float | None:
    """A finite number, with or without commas between its digits."""
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _last_box(text: str) -> str:
    begin = text.rfind(BOX_BEGINS)
    depth = 0
    for at in range(begin + len(BOX_BEGINS) if begin >= 0 else len(text), len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth < 0:
            return text[begin + len(BOX_BEGINS) : at].strip()
    return ""
