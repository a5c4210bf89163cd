"""Files of unseen mazes, in the format of the released data."""

import json
from pathlib import Path
from typing import Any

from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, distinct

CELLS = {"S": 1, "G": 2, "H": -1, ".": 0}


def write_mazes(folder: Path, per_size: int, *, sizes: tuple[int, ...] = (3, 4, 5, 6)) -> Path:
    """``folder/mazes.jsonl`` with ``per_size`` mazes of each size, in order of size."""
    mazes = [maze for size in sizes for maze in distinct(size, "test", per_size)]
    rows = []
    for index, maze in enumerate(mazes):
        draw_maze(maze.rows).save(folder / f"{index}.png")
        map_desc = [[CELLS[cell] for cell in row] for row in maze.rows]
        rows.append({"text_input": QUESTION, "image_input": f"{index}.png", "map_desc": map_desc})
    return write_rows(folder / "mazes.jsonl", rows)


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
