"""Our own tasks as folders in the released form: ``train.jsonl``, ``test.jsonl`` and pictures in ``images/``."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from contracts import maze_pictures, mazes, trail_pictures, trails
from contracts.errors import InvalidRequest
from contracts.mazes import Cell, Maze
from contracts.trails import Trail
from training import maze_text, trail_text
from training.sample_fields import MAP_FREE, MAP_GOAL, MAP_HOLE, MAP_START

MAP_DESC = {mazes.START: MAP_START, mazes.GOAL: MAP_GOAL, mazes.HOLE: MAP_HOLE, mazes.FREE: MAP_FREE}
IMAGES = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSample:
    """One sample with one latent block, its pictures not yet written."""

    picture: Image.Image
    helper_image: Image.Image
    question: str
    thought: str
    answer: str
    target_cells: Sequence[int]
    group: str
    more: Mapping[str, Any]


def maze_sample(maze: Maze) -> NewSample:
    """A maze; its block is to think of the cells of the path in order."""
    return NewSample(
        picture=maze_pictures.draw_maze(maze.rows),
        helper_image=maze_pictures.draw_solution(maze.rows, maze.solution),
        question=mazes.QUESTION,
        thought=maze_text.THOUGHT,
        answer=maze.solution,
        target_cells=_numbers(mazes.path_cells(maze.rows, maze.solution), maze.size),
        group=f"{maze.size}x{maze.size}",
        more={"map_desc": [[MAP_DESC[kind] for kind in line] for line in maze.rows]},
    )


def trail_sample(trail: Trail) -> NewSample:
    """A trail; its block is to think of the cells of the trail in order."""
    return NewSample(
        picture=trail_pictures.draw_trail(trail.rows),
        helper_image=trail_pictures.draw_solution(trail.rows),
        question=trails.QUESTION,
        thought=trail_text.THOUGHT,
        answer=trail.answer,
        target_cells=_numbers(trail.cells, trail.size),
        group=f"{trail.size}x{trail.size}",
        more={"trail": list(trail.rows)},
    )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` at the end of the block: whole, or not at all.

    Raises:
        InvalidRequest: ``out`` is there and not an empty folder, or something could not be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidRequest(f"{out} is there and not an empty folder; name a new one", param="out")
    try:
        out = out.resolve()
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
        try:
            yield partial
            partial.chmod(0o777 & ~_umask())  # made for its owner alone
            partial.replace(out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise InvalidRequest(f"cannot write {error.filename or out}: {error.strerror or error}", param="out") from error


def write_split(folder: Path, split: str, samples: Iterable[NewSample]) -> None:
    """``folder/split.jsonl`` and the pictures it names. The folder must be there. Raises: OSError."""
    (folder / IMAGES).mkdir(exist_ok=True)
    with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
        for number, sample in enumerate(samples):
            picture, helper = f"{IMAGES}/{split}-{number:06}.png", f"{IMAGES}/{split}-{number:06}-helper.png"
            sample.picture.save(folder / picture)
            sample.helper_image.save(folder / helper)
            lines.write(json.dumps(_row(sample, picture, helper)) + "\n")


def _row(sample: NewSample, picture: str, helper: str) -> dict[str, Any]:
    return {
        "text_input": sample.question,
        "image_input": picture,
        "sequence_plan": [
            {"type": "text", "content": sample.thought},
            {"type": "latent", "helper_image": helper, "target_cells": list(sample.target_cells)},
            {"type": "text", "content": maze_text.answer_box(sample.answer)},
        ],
        "original_final_answer": sample.answer,
        "group": sample.group,
        **sample.more,
    }


def _umask() -> int:
    mask = os.umask(0)  # there is no way to ask without setting it
    os.umask(mask)
    return mask


def _numbers(cells: Sequence[Cell], size: int) -> list[int]:
    """Cells numbered row by row, as the visual tokens of a picture of one cell a token are."""
    return [row * size + column for row, column in cells]
