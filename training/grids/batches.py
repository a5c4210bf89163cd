"""Batches of puzzles, made as needed: all of one task, size and wording, so that only the answers are padded.

Shape letters: B puzzles of a batch, T tokens, N cells of a puzzle.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.batch import IGNORED_LABEL, Batch, Block
from training.grids.tasks import GridTask, Puzzle
from training.grids.tiles import TileTable
from training.maze_text import answer_box
from training.positions import mrope_positions
from training.tiny_tokenizer import SpecialIds, special_ids

T = TypeVar("T")

# ``direct``: thought and answer. ``unblocked``: the same among batches with blocks. ``chain``: thought, each step in
# words, answer. ``block``: thought, a latent block, answer. ``prompt``: no reply, to generate from.
Form = Literal["direct", "unblocked", "chain", "block", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridBatch:
    """A batch with the puzzles that it is of. cell_labels_BN: one tensor for each classifier of cells."""

    batch: Batch
    task: GridTask
    puzzles: Sequence[Puzzle]
    cell_labels_BN: Sequence[Tensor]


class GridBatches:
    """Makes batches of the training split. The seed decides all of them."""

    def __init__(self, tokenizer: Tokenizer, tasks: Mapping[str, GridTask], latent_size: int, seed: int) -> None:
        self.tokenizer = tokenizer
        self.tasks = tasks
        self.ids: SpecialIds = special_ids(tokenizer)
        self.rng = random.Random(f"batches:{seed}")
        self._latent_size = latent_size
        self._tables = {name: TileTable(task) for name, task in tasks.items()}

    def draw(
        self, task_weights: Mapping[str, float], size_weights: Mapping[int, float], batch_size: int, form: Form
    ) -> GridBatch:
        """The next batch: task, size and wording by lot, puzzles of the training split."""
        task = self.tasks[self._choose(task_weights)]
        size = self._choose(size_weights)
        question = task.draw_question(self.rng)
        puzzles = [task.draw(self.rng, size, "train") for _ in range(batch_size)]
        return self.collate(task, puzzles, question, form)

    def collate(self, task: GridTask, puzzles: Sequence[Puzzle], question: str, form: Form) -> GridBatch:
        """The batch of these puzzles, all of one size, under one question."""
        prompt = self.prompt_ids(len(puzzles[0].tiles), question)
        header = self._encode("<|im_start|>assistant\n")
        replies = [self._reply(task, puzzle, form) for puzzle in puzzles]
        ids = [torch.tensor(prompt + reply) for reply in replies]
        ids_BT = pad_sequence(ids, batch_first=True, padding_value=self.ids.end_of_text)
        labels_BT = ids_BT.clone()
        labels_BT[:, : len(prompt)] = IGNORED_LABEL
        labels_BT[(ids_BT == self.ids.latent_pad) | (ids_BT == self.ids.end_of_text)] = IGNORED_LABEL
        after_thought = len(prompt) + len(self._encode(task.thought))
        if form == "unblocked":
            # Where a block would begin nothing is learned: turning latents off when serving rules START out there.
            labels_BT[:, after_thought] = IGNORED_LABEL
        blocks = (Block(after_thought + 1, self._latent_size),) if form == "block" else ()
        table = self._tables[task.name]
        side = len(puzzles[0].rows)
        positions_3T = mrope_positions(ids_BT[0].tolist(), self.ids.image_pad, [(1, side, side)])
        batch = Batch(
            ids_BT=ids_BT,
            labels_BT=labels_BT,
            positions_3BT=positions_3T[:, None].expand(-1, len(puzzles), -1),
            lengths=tuple(len(prompt) + len(reply) for reply in replies),
            prompt_lengths=(len(prompt) - len(header),) * len(puzzles),
            blocks=(blocks,) * len(puzzles),
            num_images=(1,) * len(puzzles),
            images=table.images([puzzle.tiles for puzzle in puzzles]),
            helpers=table.images([puzzle.helper_tiles for puzzle in puzzles]) if blocks else None,
            target_cells=tuple((puzzle.target_cells,) if blocks else () for puzzle in puzzles),
        )
        labels = [
            torch.tensor([puzzle.cell_labels[index] for puzzle in puzzles]) for index in range(len(task.num_classes))
        ]
        return GridBatch(batch=batch, task=task, puzzles=puzzles, cell_labels_BN=labels)

    def prompt_ids(self, num_image_tokens: int, question: str) -> list[int]:
        """What the checkpoint's chat template and image processor make of one picture and one question."""
        return [
            *self._encode("<|im_start|>user\n"),
            self.ids.vision_start,
            *[self.ids.image_pad] * num_image_tokens,
            self.ids.vision_end,
            *self._encode(question),
            *self._encode("<|im_end|>\n<|im_start|>assistant\n"),
        ]

    def _reply(self, task: GridTask, puzzle: Puzzle, form: Form) -> list[int]:
        if form == "prompt":
            return []
        thought = self._encode(task.thought)
        if form == "chain":
            thought += self._encode(f" {puzzle.chain} ")
        if form == "block":
            pads = [self.ids.latent_pad] * self._latent_size
            thought += [self.ids.latent_start, *pads, self.ids.latent_end]
        return [*thought, *self._encode(answer_box(puzzle.answer)), self.ids.im_end]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _choose(self, weights: Mapping[T, float]) -> T:
        return self.rng.choices(list(weights), list(weights.values()))[0]
