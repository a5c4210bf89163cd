"""The two models that are measured, and what is asked of them."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from benchmarks.decode.checkpoint import ROOT, UNUSED_ID, random_checkpoint, with_blocks_of
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, distinct
from model_runner.checkpoint import Checkpoint, read_checkpoint
from model_runner.engine.base import EngineImage, EngineRequest, SamplingSettings
from model_runner.generation import GenerationDefaults, read_generation_defaults
from model_runner.image_processor import ImageSizes
from model_runner.prompt import PromptBuilder

EMBEDDED, RANDOM = "embedded", "0.6B"
EMBEDDED_FOLDER = ROOT / "models" / "maze-tiny"
# Ids of the embedded model that it never answers with: <|video_pad|> and <|im_start|>.
EMBEDDED_START_ID, EMBEDDED_END_ID = 380, 375
RANDOM_END_ID = 151663  # <|repo_name|>; its row in the head is 0
LONG_BLOCK = 64
IMAGE_PX = 112  # 16 visual tokens
WORDS = ("the", "red", "small", "box", "is", "left", "of", "a", "green", "ball", "and", "near", "two", "open", "doors")

NUM_WORDS = 24  # of a question to the random weights


@dataclass(frozen=True, kw_only=True)
class BenchModel:
    """A checkpoint as it is asked. ``dtype`` is that of both engines."""

    name: str
    checkpoint: Checkpoint
    defaults: GenerationDefaults
    dtype: Literal["float32", "bfloat16"]

    def requests(self, count: int, max_tokens: int, *, seed: int = 0, px: int | None = None) -> list[EngineRequest]:
        """Each asks one of ``questions``."""
        builder = PromptBuilder(self.checkpoint)
        return [
            EngineRequest(
                request_id=f"{seed}-{index}",
                prompt_ids=builder.build(question, num_images=1),
                images=(image_of(picture),),
                sampling=SamplingSettings(max_tokens=max_tokens),
            )
            for index, (question, picture) in enumerate(self.questions(count, seed, px))
        ]

    def questions(self, count: int, seed: int, px: int | None = None) -> list[tuple[str, Image.Image]]:
        """With one picture each, no two alike: unseen mazes, or random words and random pixels; ``px`` wide if that is
        given."""
        return _mazes(count, seed, px) if self.name == EMBEDDED else _noise(count, seed, px or IMAGE_PX)

    def other_questions(self, requests: Sequence[EngineRequest], seed: int) -> list[tuple[int, ...]]:
        """Prompts with other questions of the same length, for the same pictures."""
        builder, rng = PromptBuilder(self.checkpoint), random.Random(seed)

        def other(asked: tuple[int, ...]) -> tuple[int, ...]:
            while True:  # words in another order may be more tokens, or fewer
                words = QUESTION.split() if self.name == EMBEDDED else rng.choices(WORDS, k=NUM_WORDS)
                found = builder.build(" ".join(rng.sample(words, len(words))), num_images=1)
                if len(found) == len(asked) and found != asked:
                    return found

        return [other(request.prompt_ids) for request in requests]

    def text_ids(self, count: int, seed: int) -> tuple[int, ...]:
        """Ordinary tokens by lot."""
        first, last = (10, 300) if self.name == EMBEDDED else (1000, 100000)
        rng = random.Random(seed)
        return tuple(rng.randint(first, last) for _ in range(count))

    def tokens_of_image(self, size: tuple[int, int]) -> int:
        return ImageSizes(str(self.checkpoint.folder)).num_tokens(size)

    @property
    def kv_bytes_of_token(self) -> int:
        """Keys and values of all layers."""
        text: dict[str, Any] = self.checkpoint.text_config
        head_dim = text["hidden_size"] // text["num_attention_heads"]
        width = 4 if self.dtype == "float32" else 2
        return int(2 * text["num_hidden_layers"] * text["num_key_value_heads"] * head_dim * width)


def load(name: str) -> BenchModel:
    """The model as it is published, or generated."""
    return _read(name, EMBEDDED_FOLDER if name == EMBEDDED else random_checkpoint())


def load_with_long_blocks(name: str) -> BenchModel:
    """With ids of START and END that are never chosen, and blocks of ``LONG_BLOCK``; see ``with_blocks_of``."""
    ids = (EMBEDDED_START_ID, EMBEDDED_END_ID) if name == EMBEDDED else (UNUSED_ID, RANDOM_END_ID)
    source = EMBEDDED_FOLDER if name == EMBEDDED else random_checkpoint()
    return _read(name, with_blocks_of(LONG_BLOCK, source, start_id=ids[0], end_id=ids[1]))


def _read(name: str, folder: Path) -> BenchModel:
    checkpoint = read_checkpoint(folder, is_cpu=True)
    defaults = read_generation_defaults(folder, checkpoint.config)
    return BenchModel(
        name=name, checkpoint=checkpoint, defaults=defaults, dtype="float32" if name == EMBEDDED else "bfloat16"
    )


def endless(model: BenchModel) -> BenchModel:
    """The same, but an answer ends by ``max_tokens`` alone."""
    return replace(model, defaults=replace(model.defaults, end_ids=(model.checkpoint.image_token_id,)))


def image_of(rgb: Image.Image) -> EngineImage:
    return EngineImage(id=hashlib.sha256(rgb.tobytes()).hexdigest(), rgb=rgb)


def random_picture(px: int, rng: random.Random) -> Image.Image:
    return Image.frombytes("RGB", (px, px), rng.randbytes(3 * px * px))


def without_latents(requests: Sequence[EngineRequest]) -> list[EngineRequest]:
    return [replace(request, latent_mode="off") for request in requests]


def _mazes(count: int, seed: int, px: int | None) -> list[tuple[str, Image.Image]]:
    """Equally many of 4x4, 5x5 and 6x6, in turns."""
    by_size = [distinct(size, "test", -(-count // 3), seed) for size in (4, 5, 6)]
    pictures = [draw_maze(maze.rows) for mazes in zip(*by_size, strict=True) for maze in mazes][:count]
    return [(QUESTION, picture if px is None else picture.resize((px, px))) for picture in pictures]


def _noise(count: int, seed: int, px: int) -> list[tuple[str, Image.Image]]:
    rng = random.Random(f"noise:{seed}")
    return [(" ".join(rng.choices(WORDS, k=NUM_WORDS)), random_picture(px, rng)) for _ in range(count)]
