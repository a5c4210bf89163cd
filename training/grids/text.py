"""What the tokenizer of the grid models learns its merges from."""

from collections.abc import Iterator

from contracts import trails
from training import maze_text, trail_text
from training.maze_text import answer_box


def sentences() -> Iterator[str]:
    """Standard questions and answers often, other parts once."""
    yield from maze_text.sentences()
    names = [trails.cell_name((row, column)) for row in trails.SIZES for column in range(6)]
    for _ in range(100):
        yield from (trails.QUESTION, trail_text.THOUGHT, answer_box(names[0]))
        yield " " + " ".join(names) + " "
