"""One small untrained model and its data, shared by the tests of training."""

from dataclasses import dataclass, replace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from contracts.mazes import QUESTION, distinct
from training.configs import Recipe, maze_tiny
from training.maze_data import MazeBatch, MazeBatches, TilePixels
from training.maze_losses import MazeLosses
from training.maze_text import sentences
from training.tiny_model import build_model
from training.tiny_tokenizer import SpecialIds, build_tokenizer, special_ids


@dataclass(frozen=True)
class Setup:
    recipe: Recipe
    tokenizer: Tokenizer
    ids: SpecialIds
    batches: MazeBatches
    model: Qwen2_5_VLForConditionalGeneration

    def batch(self, size: int, count: int) -> MazeBatch:
        return self.batches.collate(distinct(size, "train", count), QUESTION)

    def losses(self, model: Qwen2_5_VLForConditionalGeneration) -> MazeLosses:
        return MazeLosses(model, self.batches.pixels.table_TPX, self.ids, self.recipe)


@pytest.fixture(scope="session")
def setup() -> Setup:
    torch.set_num_threads(1)
    recipe = replace(maze_tiny(), batch_size=4)
    tokenizer = build_tokenizer(sentences(), recipe.model.vocab_size)
    ids = special_ids(tokenizer)
    batches = MazeBatches(tokenizer, TilePixels(), recipe, seed=0)
    return Setup(recipe, tokenizer, ids, batches, build_model(recipe.model, ids, seed=0))
