"""Rows of Zebra-CoT as its authors publish them (arXiv 2507.16746), turned into the released ILVR form.

ILVR trains on 10,000 of them whose ids are not published, so whoever repeats that brings their own. A row has
``Question``, ``Text Reasoning Trace``, ``Final Answer`` and pictures ``problem_image_N`` and ``reasoning_image_N``. The
texts name a picture as ``<image_start>[reasoning_image_1]<image_end>``.
"""

import re
from collections.abc import Mapping
from typing import Any

from contracts.errors import InvalidRequest

QUESTION, TRACE, ANSWER = "Question", "Text Reasoning Trace", "Final Answer"
_PLACEHOLDER = re.compile(r"<image_start>\[((?:problem|reasoning)_image_\d+)\]<image_end>")


def is_zebra_row(row: Mapping[str, Any]) -> bool:
    """Whether the row is of the published Zebra-CoT, not of the released ILVR data."""
    return QUESTION in row and TRACE in row and "text_input" not in row


def zebra_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row in the released form: each reasoning picture that the trace names is the helper image of one block.

    A problem picture that the trace names again is left out there: the model has seen it in the question. Problem
    pictures that the question does not name come before it.

    Raises:
        InvalidRequest: a text is none, or names a picture that the row does not have.
    """
    for field in (QUESTION, TRACE):
        if not isinstance(row[field], str):
            raise InvalidRequest(f"{where}: {field} must be text", param=field)
    named = _PLACEHOLDER.findall(row[QUESTION])
    others = [name for name in _problem_images(row) if name not in named]
    question = "<image>" * len(others) * bool(named) + _PLACEHOLDER.sub("<image>", row[QUESTION])
    return {
        "text_input": question,
        "image_input": [_path(row, name, where) for name in [*others, *named]],
        "sequence_plan": _steps(row, where),
        "original_final_answer": row.get(ANSWER),
        **{key: row[key] for key in ("group", "subtask", "category") if key in row},
    }


def _steps(row: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    # With one group in the pattern, split gives text and picture name in turn.
    pieces = _PLACEHOLDER.split(row[TRACE])
    steps: list[dict[str, Any]] = []
    for text, name in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        if text and steps and steps[-1]["type"] == "text":  # a problem picture was left out between the two
            steps[-1]["content"] += text
        elif text:
            steps.append({"type": "text", "content": text})
        if name.startswith("reasoning"):
            steps.append({"type": "latent", "helper_image": _path(row, name, where)})
    return steps


def _problem_images(row: Mapping[str, Any]) -> list[str]:
    numbers = [int(key.removeprefix("problem_image_")) for key in row if re.fullmatch(r"problem_image_\d+", key)]
    names = [f"problem_image_{number}" for number in sorted(numbers)]
    # A table of rows with different numbers of pictures fills up with null.
    return [name for name in names if row[name] is not None]


def _path(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Of a picture: a path, or an object that has one, as the tables of the hub do."""
    picture = row.get(name)
    if picture is None:
        raise InvalidRequest(f"{where}: a text names {name}, but the row has no such picture", param=name)
    return picture.get("path") if isinstance(picture, dict) else picture
