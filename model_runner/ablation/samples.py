"""What a sample is, for ablations: its number, whether it is another one than a request, and samples that lend latents.

Nothing depends on names, on order of arrival or on what else is asked: the same question about the same pixels is the
same sample, in both engines and through HTTP.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from contracts.errors import BadSettings
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, SIZES, distinct
from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import EngineImage, EngineRequest, SamplingSettings
from model_runner.generation import GenerationDefaults
from model_runner.prompt import PromptBuilder

MAX_DONORS = 64
MAZES_PER_SIZE = 6
DONOR_MAX_TOKENS = 512
IMAGE_PLACEHOLDER = "<image>"
SEED_BYTES = 8


def sample_of(request: EngineRequest) -> bytes:
    """A digest that two requests share if they are about the same pictures, or without pictures have the same prompt.

    Another question about the same picture is no other sample: its latents would be much the same.
    """
    digest = sha256()
    for image in request.images:
        digest.update(f"{image.rgb.size}".encode() + image.rgb.tobytes())
    if not request.images:
        digest.update(_bytes_of(request.prompt_ids))
    return digest.digest()


def seed_of(request: EngineRequest, sample: bytes) -> int:
    """63 bits from prompt, sample and the seed of the sampling: one request, one number, wherever it is computed."""
    seed = repr(request.sampling.seed).encode()
    digest = sha256(b"\0".join((seed, _bytes_of(request.prompt_ids), sample))).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big") >> 1


def _bytes_of(ids: Sequence[int]) -> bytes:
    return np.asarray(ids, dtype=np.int64).tobytes()


def donor_requests(file: Path | None, checkpoint: Checkpoint, defaults: GenerationDefaults) -> list[EngineRequest]:
    """The samples of a file, or without one mazes of the training split: at most ``MAX_DONORS``, evenly from them all.

    Raises ``BadSettings`` for a file that cannot be read, with its line.
    """
    prompts = PromptBuilder(checkpoint)
    samples = _mazes() if file is None else _read(file)
    every = -(-len(samples) // MAX_DONORS)
    sampling = SamplingSettings(max_tokens=DONOR_MAX_TOKENS, repetition_penalty=defaults.repetition_penalty)
    requests = []
    for number, (question, pictures) in enumerate(samples[::every]):
        loaded = [_load(picture) for picture in pictures]
        images = tuple(EngineImage(id=f"donor-{number}-{at}", rgb=rgb) for at, rgb in enumerate(loaded))
        requests.append(
            EngineRequest(
                request_id=f"donor-{number}",
                prompt_ids=prompts.build(question, num_images=len(images)),
                images=images,
                sampling=sampling,
            )
        )
    return requests


Sample = tuple[str, Sequence[Path | Image.Image]]


def _mazes() -> list[Sample]:
    """What a checkpoint is asked when nobody says what: mazes of every size, none of which a benchmark asks about."""
    mazes = [maze for size in SIZES for maze in distinct(size, "train", MAZES_PER_SIZE)]
    return [(QUESTION, [draw_maze(maze.rows)]) for maze in mazes]


def _read(file: Path) -> list[Sample]:
    """``text_input`` and ``image_input`` of each row of a JSONL file, as in released ILVR data; pictures come first."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"--latent-donors: {file} cannot be read: {error}") from error
    samples = [_sample(f"{file}:{number}", line, file.parent) for number, line in enumerate(lines, 1) if line.strip()]
    if not samples:
        raise BadSettings(f"--latent-donors: {file} has no rows; give one JSON object a line")
    return samples


def _sample(where: str, line: str, folder: Path) -> Sample:
    try:
        row: Any = json.loads(line)
        text, pictures = row["text_input"], row.get("image_input") or []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadSettings(f"--latent-donors: {where} is no JSON object with text_input: {error!r}") from error
    pictures = [pictures] if isinstance(pictures, str) else pictures
    if not isinstance(text, str) or not isinstance(pictures, list) or not all(isinstance(one, str) for one in pictures):
        raise BadSettings(f"--latent-donors: {where}: text_input must be a text, image_input a path or a list of paths")
    return text.replace(IMAGE_PLACEHOLDER, "").strip(), [folder / one for one in pictures]


def _load(picture: Path | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    try:
        with Image.open(picture) as opened:
            return Image.fromarray(np.asarray(opened.convert("RGB")))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadSettings(f"--latent-donors: picture {picture} cannot be read: {error}") from error
