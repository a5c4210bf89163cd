"""Batches: the pixels are the image processor's, the mazes are of the training split."""

import torch
from torch.nn import functional

from contracts.maze_pictures import draw_maze, draw_solution
from contracts.mazes import QUESTION, SIZES, generate, is_test_split
from tests.training.conftest import Setup
from training.maze_data import IGNORED_LABEL, image_processor


def test_tiles_are_exactly_what_the_image_processor_gives(setup: Setup) -> None:
    processor, pixels = image_processor(), setup.batches.pixels
    for size in SIZES:
        maze = generate(size, 3)
        pictures = [draw_maze(maze.rows), draw_solution(maze.rows, maze.solution)]
        seen = processor(images=pictures, return_tensors="pt")
        assert seen["image_grid_thw"].tolist() == [[1, 2 * size, 2 * size]] * 2
        tiles = torch.tensor(pixels.tiles(maze) + pixels.tiles(maze, maze.solution))
        table = functional.embedding(tiles, pixels.table_TPX.flatten(1))
        assert torch.equal(table.view_as(seen["pixel_values"]), seen["pixel_values"])


def test_batches_never_hold_a_test_maze(setup: Setup) -> None:
    for _ in range(30):
        batch = setup.batches.draw(setup.recipe.size_weights)
        assert len(batch.mazes) == setup.recipe.batch_size
        assert {maze.size for maze in batch.mazes} == {batch.size}
        assert not any(is_test_split(maze.rows) for maze in batch.mazes)


def test_labels_are_the_box_and_its_end(setup: Setup) -> None:
    batch = setup.batch(4, 4)
    for maze, ids, labels in zip(batch.mazes, batch.box_ids_BL, batch.box_labels_BL, strict=True):
        answer = [*setup.tokenizer.encode(f"\\boxed{{{maze.solution}}}").ids, setup.ids.im_end]
        assert [label for label in labels.tolist() if label != IGNORED_LABEL] == answer
        assert ids.tolist()[: len(answer)] == answer


def test_most_questions_are_the_standard_one_and_others_vary(setup: Setup) -> None:
    questions = [tuple(setup.batches.draw(setup.recipe.size_weights).prompt_ids) for _ in range(60)]
    standard = setup.tokenizer.encode(QUESTION).ids
    num_standard = sum(_holds(prompt, standard) for prompt in questions)
    assert 20 <= num_standard <= 50


def _holds(prompt: tuple[int, ...], ids: list[int]) -> bool:
    return any(list(prompt[start : start + len(ids)]) == ids for start in range(len(prompt)))
