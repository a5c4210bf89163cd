"""Batches of mazes, made as needed: all of one size and one wording, so that only the answers are padded.

Shape letters: B mazes of a batch, N cells of a maze (n x n), L answer tokens, P patches of a cell (4), X values of a
patch.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from contracts.maze_pictures import path_exits, tile
from contracts.mazes import FREE, GOAL, HOLE, MOVES, START, Maze, best_moves, draw_lot, path_cells
from training.configs import Recipe
from training.maze_text import THOUGHT, answer_box, draw_question
from training.tiny_tokenizer import SpecialIds, special_ids

IGNORED_LABEL = -100
PATCHES_PER_CELL = 4
# The smallest and largest picture that is not scaled: 2x2 to 16x16 cells of 28 pixels.
MIN_PIXELS, MAX_PIXELS = 56 * 56, 448 * 448


@dataclass(frozen=True, slots=True)
class MazeBatch:
    """Mazes of one size under one question, with what a model sees of them and should answer."""

    size: int
    mazes: Sequence[Maze]
    tiles_BN: Tensor
    helper_tiles_BN: Tensor
    best_moves_BN: Tensor  # index in MOVES of each cell's best move; IGNORED_LABEL where there is none
    path_steps_BN: Tensor  # 1 + the step at which the solution is in the cell, 0 off the path
    prompt_ids: list[int]  # chat layout up to and with the assistant's header; one image pad per cell
    thought_ids: list[int]
    box_ids_BL: Tensor  # answer box and <|im_end|>, padded on the right with <|endoftext|>
    box_labels_BL: Tensor  # the same with IGNORED_LABEL in the padding


def image_processor() -> Qwen2VLImageProcessorPil:
    """The processor that serving loads from the checkpoint. PIL's, whatever torchvision is installed."""
    return Qwen2VLImageProcessorPil(size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS})


class TilePixels:
    """Normalised pixel values of every tile, so that a batch is a table look-up.

    ``table_TPX`` holds, for tile T, exactly the rows that the image processor gives for that cell in any maze: scaling
    does not happen, and the rest of its work is element by element.
    """

    def __init__(self) -> None:
        processor = image_processor()
        kinds = [(HOLE, "")] + [(kind, exits) for kind in (FREE, START, GOAL) for exits in _all_exits()]
        self._index = {key: index for index, key in enumerate(kinds)}
        rows = []
        for kind, exits in kinds:
            picture = Image.new("RGB", (56, 56))  # four copies: one alone would be scaled up to MIN_PIXELS
            for corner in ((0, 0), (0, 28), (28, 0), (28, 28)):
                picture.paste(tile(kind, exits), corner)
            rows.append(processor(images=[picture], return_tensors="pt")["pixel_values"][:PATCHES_PER_CELL])
        self.table_TPX = torch.stack(rows)

    def tiles(self, maze: Maze, moves: str = "") -> list[int]:
        """The tile of each cell, row by row; with ``moves``, of the helper image."""
        exits = path_exits(maze.rows, moves)
        return [
            self._index[kind, exits.get((row, column), "")]
            for row, line in enumerate(maze.rows)
            for column, kind in enumerate(line)
        ]


class MazeBatches:
    """Makes batches of the training split. The seed decides all of them."""

    def __init__(self, tokenizer: Tokenizer, pixels: TilePixels, recipe: Recipe, seed: int) -> None:
        self.tokenizer = tokenizer
        self.pixels = pixels
        self.ids = special_ids(tokenizer)
        self._recipe = recipe
        self.rng = random.Random(f"batches:{seed}")

    def draw(self, size_weights: Mapping[int, float]) -> MazeBatch:
        """The next batch: size and wording by lot, mazes of the training split."""
        size = self.rng.choices(list(size_weights), list(size_weights.values()))[0]
        question = draw_question(self.rng)
        mazes = [draw_lot(self.rng, size, "train") for _ in range(self._recipe.batch_size)]
        return self.collate(mazes, question)

    def collate(self, mazes: Sequence[Maze], question: str) -> MazeBatch:
        """The batch of these mazes, all of one size, under one question."""
        size = mazes[0].size
        answers = [[*encode(self.tokenizer, answer_box(maze.solution)), self.ids.im_end] for maze in mazes]
        longest = max(map(len, answers))
        return MazeBatch(
            size=size,
            mazes=mazes,
            tiles_BN=torch.tensor([self.pixels.tiles(maze) for maze in mazes]),
            helper_tiles_BN=torch.tensor([self.pixels.tiles(maze, maze.solution) for maze in mazes]),
            path_steps_BN=torch.tensor([_path_step_labels(maze) for maze in mazes]),
            best_moves_BN=torch.tensor([_best_move_labels(maze) for maze in mazes]),
            prompt_ids=prompt_ids(self.tokenizer, self.ids, size * size, question),
            thought_ids=encode(self.tokenizer, THOUGHT),
            box_ids_BL=torch.tensor([a + [self.ids.end_of_text] * (longest - len(a)) for a in answers]),
            box_labels_BL=torch.tensor([a + [IGNORED_LABEL] * (longest - len(a)) for a in answers]),
        )


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def prompt_ids(tokenizer: Tokenizer, ids: SpecialIds, num_image_tokens: int, question: str) -> list[int]:
    """What the checkpoint's chat template and image processor make of one picture and one question."""
    return [
        *encode(tokenizer, "<|im_start|>user\n"),
        ids.vision_start,
        *[ids.image_pad] * num_image_tokens,
        ids.vision_end,
        *encode(tokenizer, question),
        *encode(tokenizer, "<|im_end|>\n<|im_start|>assistant\n"),
    ]


def _best_move_labels(maze: Maze) -> list[int]:
    best = best_moves(maze.rows)
    names = list(MOVES)
    cells = [(row, column) for row in range(maze.size) for column in range(maze.size)]
    return [names.index(best[cell]) if cell in best else IGNORED_LABEL for cell in cells]


def _path_step_labels(maze: Maze) -> list[int]:
    labels = [0] * maze.size**2
    for index, (row, column) in enumerate(path_cells(maze.rows, maze.solution)):
        labels[row * maze.size + column] = index + 1
    return labels


def _all_exits() -> list[str]:
    """No side, each side, each pair of sides: all that a shortest path can do in a cell."""
    sides = "DLRU"
    return ["", *sides, *(a + b for a in sides for b in sides if a < b)]
