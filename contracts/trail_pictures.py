"""Pictures of trails: tiles of 28 pixels as those of mazes, one merged visual token of Qwen2.5-VL a cell.

A tile is a pure function of what its cell holds, of where the trail crosses its sides and of whether the trail ends in
it. Nothing crosses a tile's edge but the trail of the helper image.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from PIL import Image, ImageDraw

from contracts.maze_pictures import (
    BADGE,
    FLOOR,
    GRID_LINE,
    LINE_WIDTH,
    MIDDLE,
    OPPOSITE,
    PATH,
    PATH_WIDTH,
    SCALE,
    SIDE,
    draw_s,
    mosaic,
)
from contracts.mazes import MOVES, START, Cell
from contracts.trails import FLAG, follow

ARROW = (70, 62, 84)
CLOTH, POLE = (208, 62, 44), (70, 62, 84)
TRAIL_FLOOR = (206, 224, 250)
END_FLOOR, END_RING = (255, 226, 122), (226, 150, 12)
ARROW_WIDTH = 4 * SCALE


def draw_trail(rows: Sequence[str]) -> Image.Image:
    """The picture of a trail task, RGB, 28n x 28n pixels."""
    return mosaic(rows, lambda kind, _: tile(kind))


def draw_solution(rows: Sequence[str]) -> Image.Image:
    """The helper image: the same picture with the trail drawn and its last flag made to stand out."""
    cells = follow(rows)
    exits = trail_exits(rows, cells)
    return mosaic(rows, lambda kind, cell: tile(kind, exits.get(cell, ""), cell == cells[-1]))


def trail_exits(rows: Sequence[str], cells: Sequence[Cell]) -> dict[Cell, str]:
    """For each cell of a trail the sides by which the trail enters or leaves it, as sorted move letters."""
    exits: dict[Cell, set[str]] = {cell: set() for cell in cells}
    for here, there in pairwise(cells):
        move = rows[here[0]][here[1]].upper()
        exits[here].add(move)
        exits[there].add(OPPOSITE[move])
    return {cell: "".join(sorted(sides)) for cell, sides in exits.items()}


@cache
def tile(kind: str, exits: str = "", is_end: bool = False) -> Image.Image:
    """The 28 x 28 picture of one cell; ``exits`` are the sides the trail crosses. Shared: do not draw on it."""
    image = Image.new("RGB", (SIDE, SIDE), END_FLOOR if is_end else TRAIL_FLOOR if exits else FLOOR)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=GRID_LINE, width=LINE_WIDTH)
    for side in exits:
        draw.line(((MIDDLE, MIDDLE), _towards(side, MIDDLE)), fill=PATH, width=PATH_WIDTH)
    if exits:  # rounds the corner where the trail turns
        draw.ellipse(_square(PATH_WIDTH // 2), fill=PATH)
    if is_end:
        draw.rounded_rectangle((10, 10, 101, 101), radius=18, fill=END_FLOOR, outline=END_RING, width=2 * SCALE)
    if kind == FLAG:
        _draw_flag(draw)
    elif kind.islower():
        draw.rounded_rectangle((22, 20, 89, 91), radius=14, fill=BADGE[START])
        draw_s(draw)
        _draw_head(draw, kind.upper(), tip=55, length=22, half_width=24, colour=BADGE[START])
    else:
        draw.line((_towards(kind, -36), _towards(kind, 16)), fill=ARROW, width=ARROW_WIDTH)
        _draw_head(draw, kind, tip=40, length=30, half_width=24, colour=ARROW)
    return image.reduce(SCALE)


def _towards(move: str, distance: int, aside: int = 0) -> tuple[int, int]:
    """The point that lies ``distance`` from the middle in the direction of a move, and ``aside`` across it."""
    down, right = MOVES[move]
    return MIDDLE + right * distance + down * aside, MIDDLE + down * distance + right * aside


def _square(half_side: int) -> tuple[int, int, int, int]:
    return MIDDLE - half_side, MIDDLE - half_side, MIDDLE + half_side, MIDDLE + half_side


def _draw_head(
    draw: ImageDraw.ImageDraw, move: str, *, tip: int, length: int, half_width: int, colour: tuple[int, int, int]
) -> None:
    base = tip - length
    corners = (_towards(move, tip), _towards(move, base, half_width), _towards(move, base, -half_width))
    draw.polygon(corners, fill=colour)


def _draw_flag(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((36, 20, 42, 92), fill=POLE)
    draw.polygon(((42, 20), (86, 37), (42, 54)), fill=CLOTH)
    draw.ellipse((27, 86, 51, 98), fill=POLE)
