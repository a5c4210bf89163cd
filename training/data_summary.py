"""What a file of samples holds, and all that is wrong with it: every row is read and every picture opened."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from contracts.errors import InvalidRequest
from training.samples import LatentStep, Sample, TextStep, load_image, question_parts, scan_samples

# Of Qwen2.5-VL: one visual token covers 28 x 28 pixels of the scaled picture, which has these many pixels at least and
# at most (preprocessor_config.json of Qwen2.5-VL-7B-Instruct).
TOKEN_PX = 28
MIN_PIXELS, MAX_PIXELS = 56 * 56, 12_845_056
MAX_ASPECT = 200  # its image processor refuses pictures that are longer than that

TOP_ANSWERS = 6


@dataclass(slots=True)
class Summary:
    """Counts over the samples that could be read. Lengths are in characters."""

    num_samples: int = 0
    sound: list[Sample] = field(default_factory=list)  # nothing is wrong with these
    problems: list[InvalidRequest] = field(default_factory=list)
    groups: Counter[str] = field(default_factory=Counter)
    images_per_sample: Counter[int] = field(default_factory=Counter)
    blocks_per_sample: Counter[int] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    num_mazes: int = 0
    num_without_steps: int = 0
    num_with_targets: int = 0
    question_lengths: list[int] = field(default_factory=list)
    text_lengths: list[int] = field(default_factory=list)
    helper_tokens: list[int] = field(default_factory=list)

    @property
    def num_without_answer(self) -> int:
        return self.num_samples - self.answers.total()


def visual_tokens(width: int, height: int) -> int:
    """Visual tokens that Qwen2.5-VL sees of a picture of this size in pixels, at its default limits.

    The rule is ``smart_resize`` of its image processor: sides are rounded to tokens, and if that makes too many or too
    few pixels, scaled to the limit and rounded to stay within it.
    """
    rows, columns = round(height / TOKEN_PX), round(width / TOKEN_PX)
    pixels = rows * columns * TOKEN_PX**2
    if pixels > MAX_PIXELS:
        scale = math.sqrt(MAX_PIXELS / (width * height))
        rows, columns = (max(1, math.floor(side * scale / TOKEN_PX)) for side in (height, width))
    elif pixels < MIN_PIXELS:
        scale = math.sqrt(MIN_PIXELS / (width * height))
        rows, columns = (math.ceil(side * scale / TOKEN_PX) for side in (height, width))
    return rows * columns


def summarise(file: Path, image_root: Path | None = None, on_sample: Callable[[], None] = lambda: None) -> Summary:
    """Read all rows and open all pictures. Rows without ``sequence_plan``, as in a test file, are no problem.

    Raises:
        InvalidRequest: the file cannot be read, or holds no row.
    """
    summary = Summary()
    pictures = _Pictures()
    for found in scan_samples(file, image_root, needs_steps=False):
        if isinstance(found, InvalidRequest):
            summary.problems.append(found)
        else:
            problems = _problems(found, pictures, summary.helper_tokens)
            summary.problems += problems
            summary.sound += [] if problems else [found]
            _count(summary, found)
        on_sample()
    return summary


def spread(values: Sequence[int]) -> str:
    """Smallest, median and largest: ``9 / 16 / 36``, or one number where all are equal."""
    if not values:
        return "none"
    numbers = (min(values), int(median(values)), max(values))
    return " / ".join(map(str, numbers)) if numbers[0] != numbers[-1] else str(numbers[0])


class _Pictures:
    """Sizes of pictures in visual tokens; each is opened once, however many rows name it."""

    def __init__(self) -> None:
        self._known: dict[Path, int | InvalidRequest] = {}

    def tokens(self, path: Path) -> int:
        """Raises: InvalidRequest, the same one again for the same picture."""
        if path not in self._known:
            try:
                size = load_image(path).size
                if max(size) > MAX_ASPECT * min(size):
                    raise InvalidRequest(
                        f"{path}: one side is more than {MAX_ASPECT} times the other; crop the picture"
                    )
                self._known[path] = visual_tokens(*size)
            except InvalidRequest as error:
                self._known[path] = error
        known = self._known[path]
        if isinstance(known, InvalidRequest):
            raise known
        return known


def _count(summary: Summary, sample: Sample) -> None:
    latents = [step for step in sample.steps if isinstance(step, LatentStep)]
    summary.num_samples += 1
    summary.groups[sample.group or "(none)"] += 1
    summary.images_per_sample[len(sample.images)] += 1
    summary.blocks_per_sample[len(latents)] += 1
    if sample.final_answer:
        summary.answers[sample.final_answer] += 1
    summary.num_without_steps += not sample.steps
    summary.num_mazes += sample.map_desc is not None
    summary.num_with_targets += bool(latents) and all(step.target_cells is not None for step in latents)
    summary.question_lengths.append(len(sample.text_input))
    summary.text_lengths.append(sum(len(step.content) for step in sample.steps if isinstance(step, TextStep)))


def _problems(sample: Sample, pictures: _Pictures, helper_tokens: list[int]) -> list[InvalidRequest]:
    problems: list[InvalidRequest] = []
    try:
        question_parts(sample)
    except InvalidRequest as error:
        problems.append(error)
    for index, image in enumerate(sample.images):
        try:
            pictures.tokens(image)
        except InvalidRequest as error:
            problems.append(InvalidRequest(f"{sample.where}: image_input[{index}]: {error}"))
    for index, step in enumerate(sample.steps):
        if not isinstance(step, LatentStep):
            continue
        name = f"{sample.where}: sequence_plan[{index}]"
        try:
            num_tokens = pictures.tokens(step.helper_image)
        except InvalidRequest as error:
            problems.append(InvalidRequest(f"{name}.helper_image: {error}"))
            continue
        helper_tokens.append(num_tokens)
        if step.target_cells is not None and max(step.target_cells) >= num_tokens:
            told = f"names cell {max(step.target_cells)} of a helper image of {num_tokens} visual tokens"
            problems.append(InvalidRequest(f"{name}.target_cells {told}"))
    return problems
