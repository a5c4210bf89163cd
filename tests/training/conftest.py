"""One small untrained grid model and its data, shared by the tests of training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from training.configs import GridRecipe, maze_tiny
from training.grids.batches import Form, GridBatch, GridBatches
from training.grids.mazes import MazeTask
from training.grids.state import GridRun
from training.grids.tasks import GridTask, Puzzle
from training.grids.trails import TrailTask
from training.tiny_tokenizer import SpecialIds

TASKS: Mapping[str, GridTask] = {"maze": MazeTask(), "trail": TrailTask()}


@dataclass(frozen=True)
class Setup:
    recipe: GridRecipe
    run: GridRun

    @property
    def tokenizer(self) -> Tokenizer:
        return self.run.tokenizer

    @property
    def ids(self) -> SpecialIds:
        return self.run.batches.ids

    @property
    def batches(self) -> GridBatches:
        return self.run.batches

    @property
    def model(self) -> Qwen2_5_VLForConditionalGeneration:
        return self.run.model

    def puzzles(self, size: int, count: int, task: str = "maze") -> list[Puzzle]:
        return TASKS[task].test_puzzles(size, count)

    def batch(self, size: int, count: int, form: Form, task: str = "maze") -> GridBatch:
        return self.batches.collate(TASKS[task], self.puzzles(size, count, task), TASKS[task].question, form)


@pytest.fixture(scope="session")
def setup() -> Setup:
    torch.set_num_threads(1)
    recipe = replace(maze_tiny(), batch_size=4, task_weights={"maze": 1.0, "trail": 1.0})
    return Setup(recipe, GridRun(recipe, dict(TASKS), seed=0))
