"""``ilvr maze``: a picture to ask about. Imports no torch."""

import argparse
import json
from pathlib import Path
from typing import Any

from contracts.errors import InvalidRequest
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, SIZES, generate

DESCRIPTION = """\
Draw a maze: S is the start, G the goal, dark pits are holes.

The same size, seed and split give the same maze on every machine. By default the maze comes from the test split, which
no model here was trained on.

examples:
  ilvr maze --size 4 --seed 7 --out maze.png                     a picture
  ilvr ask maze.png "Find a safe path from S to G."              ask the running server about it
  ilvr maze --size 6 --out maze.png --json maze.json             the picture, and grid and solution beside it

the JSON: {"size": 4, "seed": 7, "grid": ["S.H.", ...], "solution": "RRDD", "question": "..."}
with S start, G goal, H hole, . free, and the moves U D L R; a move off the grid stays in place.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ilvr maze``."""
    parser.add_argument("--size", type=int, default=4, metavar="N", help="rows and columns, 3 to 6 (default 4)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which maze of that size (default 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="where to write the picture")
    parser.add_argument("--json", type=Path, metavar="JSON", help="where to write grid, solution and question")
    parser.add_argument(
        "--split",
        choices=("test", "train"),
        default="test",
        help="test: never trained on (default); train: the others",
    )


def run(args: argparse.Namespace) -> int:
    """Write the picture, and the JSON if asked for.

    Raises:
        InvalidRequest: a size outside 3 to 6, or a path that cannot be written.
    """
    if args.size not in SIZES:
        raise InvalidRequest(f"--size must be {SIZES[0]} to {SIZES[-1]}, not {args.size}", param="size")
    maze = generate(args.size, args.seed, args.split)
    content: dict[str, Any] = {
        "size": args.size,
        "seed": args.seed,
        "grid": list(maze.rows),
        "solution": maze.solution,
        "question": QUESTION,
    }
    try:
        draw_maze(maze.rows).save(args.out, format="PNG")
        if args.json is not None:
            args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {error.filename or args.out}: {error.strerror or error}") from error
    written = args.out if args.json is None else f"{args.out} and {args.json}"
    print(f'wrote {written} ({args.size}x{args.size}); ask with: ilvr ask {args.out} "{QUESTION}"')
    return 0
