"""Batches: the pixels are the image processor's, the puzzles of the training split, labels where they belong."""

import random

import pytest
import torch

from contracts import maze_pictures, mazes, trail_pictures, trails
from contracts.mazes import is_test_split
from tests.training.conftest import TASKS, Setup
from training.batch import IGNORED_LABEL
from training.grids.batches import Form
from training.grids.mazes import puzzle_of as maze_puzzle
from training.grids.tiles import TileTable, image_processor
from training.grids.trails import puzzle_of as trail_puzzle
from training.maze_text import answer_box

SIZES = (3, 4, 5, 6)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_exactly_what_the_image_processor_gives(size: int) -> None:
    maze, trail = mazes.generate(size, 3), trails.generate(size, 3)
    shown = {
        "maze": (maze_puzzle(maze), maze_pictures.draw_maze(maze.rows), maze_pictures.draw_solution(*_solved(maze))),
        "trail": (trail_puzzle(trail), trail_pictures.draw_trail(trail.rows), trail_pictures.draw_solution(trail.rows)),
    }
    for name, (puzzle, picture, helper) in shown.items():
        seen = image_processor()(images=[picture, helper], return_tensors="pt")
        assert seen["image_grid_thw"].tolist() == [[1, 2 * size, 2 * size]] * 2
        made = TileTable(TASKS[name]).images([puzzle.tiles, puzzle.helper_tiles])
        assert torch.equal(made.table_KPX[made.tiles_BN].view_as(seen["pixel_values"]), seen["pixel_values"])


@torch.no_grad()
def test_features_of_tiles_are_those_of_the_stock_tower(setup: Setup) -> None:
    puzzles = setup.puzzles(5, 3)
    tiles = TileTable(TASKS["maze"]).images([puzzle.tiles for puzzle in puzzles])
    pixels = tiles.table_KPX[tiles.tiles_BN].flatten(0, 2)
    stock = setup.model.model.visual(pixels, grid_thw=torch.tensor([[1, 10, 10]] * 3)).pooler_output
    assert tiles.num_tokens == [25] * 3
    torch.testing.assert_close(tiles.features(setup.model), stock, rtol=1e-5, atol=1e-5)


def test_batches_never_hold_a_test_puzzle(setup: Setup) -> None:
    for _ in range(30):
        grid = setup.batches.draw({"maze": 1.0, "trail": 1.0}, setup.recipe.size_weights, 4, "block")
        assert len(grid.puzzles) == 4
        assert len({puzzle.size for puzzle in grid.puzzles}) == 1
        assert not any(is_test_split(puzzle.rows) for puzzle in grid.puzzles)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("direct", "{thought}{box}"),
        ("chain", "{thought} {chain} {box}"),
        ("block", "{thought}<|latent_start|><|latent_end|>{box}"),
        ("unblocked", "{thought}{rest}"),
    ],
)
@pytest.mark.parametrize("task", ["maze", "trail"])
def test_labels_are_the_whole_reply_but_the_pads(setup: Setup, form: Form, said: str, task: str) -> None:
    batch = setup.batch(4, 4, form, task)
    for puzzle, labels in zip(batch.puzzles, batch.batch.labels_BT, strict=True):
        box = answer_box(puzzle.answer)
        # Among batches with blocks the first token after the thought is where START would stand: no label.
        rest = box.removeprefix("\\boxed{")
        want = said.format(thought=TASKS[task].thought, chain=puzzle.chain, box=box, rest=rest) + "<|im_end|>"
        got = [label for label in labels.tolist() if label != IGNORED_LABEL]
        assert setup.tokenizer.decode(got, skip_special_tokens=False) == want


def test_a_block_has_k_pads_between_start_and_end(setup: Setup) -> None:
    batch = setup.batch(3, 2, "block").batch
    ids = setup.ids
    for row, (block,) in zip(batch.ids_BT.tolist(), batch.blocks, strict=True):
        assert row[block.first_pad - 1] == ids.latent_start
        assert row[block.first_pad : block.end] == [ids.latent_pad] * setup.recipe.latent_size
        assert row[block.end] == ids.latent_end
        assert row.count(ids.latent_pad) == setup.recipe.latent_size
    assert batch.is_pad.sum(1).tolist() == [setup.recipe.latent_size] * 2


def test_targets_are_the_path_in_order() -> None:
    # S at the top left, G below it on the right; the only safe way is right, then down.
    maze = mazes.Maze(("S.", "HG"), "RD")
    assert maze_puzzle(maze).target_cells == (0, 1, 3, 3, 3, 3, 3, 3)
    assert maze_puzzle(maze).chain == "a1 b1 b2"
    trail = trails.Trail(("rDF", "FFU", "RRU"), ((0, 0), (0, 1), (1, 1)))
    assert trail_puzzle(trail).target_cells == (0, 1, 4, 4, 4, 4, 4, 4)
    assert trail_puzzle(trail).answer == "b2"


def test_most_questions_are_the_standard_one_and_others_vary() -> None:
    rng, task = random.Random(0), TASKS["maze"]
    questions = [task.draw_question(rng) for _ in range(200)]
    assert 90 <= questions.count(task.question) <= 150
    assert len(set(questions)) > 40


def _solved(maze: mazes.Maze) -> tuple[mazes.Rows, str]:
    return maze.rows, maze.solution
