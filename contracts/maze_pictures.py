"""Pictures of mazes: 28 pixels a cell, so that Qwen2.5-VL sees exactly one merged visual token a cell.

A picture is a mosaic of tiles, each a pure function of what its cell holds and of where the path leaves it; no stroke
crosses a tile's edge. Letters are drawn, not typeset, so that no font decides what the model sees.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

from PIL import Image, ImageDraw

from contracts.mazes import FREE, GOAL, HOLE, MOVES, START, Cell, path_cells

CELL_PX = 28
# Tiles are drawn four times as large and averaged down, which smooths curves the same way on every machine.
SCALE = 4
SIDE = CELL_PX * SCALE
MIDDLE = SIDE // 2

FLOOR = (250, 246, 236)
GRID_LINE = (205, 196, 178)
PIT_RIM, PIT = (92, 84, 104), (34, 30, 44)
BADGE = {START: (29, 132, 86), GOAL: (208, 62, 44)}
INK = (255, 255, 255)
PATH = (44, 112, 222)

LINE_WIDTH = SCALE
STROKE_WIDTH = 3 * SCALE
PATH_WIDTH = 6 * SCALE
OPPOSITE = {"R": "L", "L": "R", "U": "D", "D": "U"}


def draw_maze(rows: Sequence[str]) -> Image.Image:
    """The picture of a maze, RGB, 28n x 28n pixels."""
    return mosaic(rows, lambda kind, _: tile(kind))


def draw_solution(rows: Sequence[str], moves: str) -> Image.Image:
    """The helper image: the same picture with the path drawn."""
    exits = path_exits(rows, moves)
    return mosaic(rows, lambda kind, cell: tile(kind, exits.get(cell, "")))


def path_exits(rows: Sequence[str], moves: str) -> dict[Cell, str]:
    """For each cell of a path the sides by which the path enters or leaves it, as sorted move letters."""
    cells = path_cells(rows, moves)
    exits: dict[Cell, set[str]] = {cell: set() for cell in cells}
    for (here, there), move in zip(pairwise(cells), moves, strict=True):
        if here != there:
            exits[here].add(move)
            exits[there].add(OPPOSITE[move])
    return {cell: "".join(sorted(sides)) for cell, sides in exits.items()}


@cache
def tile(kind: str, exits: str = "") -> Image.Image:
    """The 28 x 28 picture of one cell; ``exits`` are the sides the path crosses. Shared: do not draw on it."""
    image = Image.new("RGB", (SIDE, SIDE), FLOOR)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=GRID_LINE, width=LINE_WIDTH)
    if kind == HOLE:
        draw.ellipse((12, 12, 99, 99), fill=PIT_RIM)
        draw.ellipse((18, 22, 93, 99), fill=PIT)
    for side in exits:
        down, right = MOVES[side]
        end = (MIDDLE + right * MIDDLE, MIDDLE + down * MIDDLE)
        draw.line(((MIDDLE, MIDDLE), end), fill=PATH, width=PATH_WIDTH)
    if exits and kind == FREE:
        radius = PATH_WIDTH // 2
        draw.ellipse((MIDDLE - radius, MIDDLE - radius, MIDDLE + radius, MIDDLE + radius), fill=PATH)
    if kind in BADGE:
        draw.rounded_rectangle((12, 12, 99, 99), radius=18, fill=BADGE[kind])
        _LETTERS[kind](draw)
    return image.reduce(SCALE)


def draw_s(draw: ImageDraw.ImageDraw) -> None:
    """A letter S in the middle of a tile that is drawn at ``SCALE``."""
    draw.arc((36, 22, 76, 62), start=90, end=340, fill=INK, width=STROKE_WIDTH)
    draw.arc((36, 50, 76, 90), start=270, end=160, fill=INK, width=STROKE_WIDTH)


def _draw_g(draw: ImageDraw.ImageDraw) -> None:
    draw.arc((30, 23, 82, 89), start=25, end=318, fill=INK, width=STROKE_WIDTH)
    draw.rectangle((58, 54, 81, 54 + STROKE_WIDTH - 1), fill=INK)
    draw.rectangle((81 - STROKE_WIDTH, 54, 81, 78), fill=INK)


_LETTERS = {START: draw_s, GOAL: _draw_g}


def mosaic(rows: Sequence[str], tile_of: Callable[[str, Cell], Image.Image]) -> Image.Image:
    """The picture made of the tile that ``tile_of`` gives for each kind of cell and its place."""
    image = Image.new("RGB", (CELL_PX * len(rows[0]), CELL_PX * len(rows)))
    for row, line in enumerate(rows):
        for column, kind in enumerate(line):
            image.paste(tile_of(kind, (row, column)), (column * CELL_PX, row * CELL_PX))
    return image
