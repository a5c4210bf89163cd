"""Samples of the released data (CoMT, Zebra-CoT, VSP) and of our own tasks: one JSON object a line.

A row has ``text_input``, ``image_input`` (a path, a list of paths, or nothing), ``sequence_plan`` (text and latent
items in turn, one helper image to each latent block), ``original_final_answer`` and, for mazes, ``map_desc``. Other
keys are allowed and ignored. The format is that of ILVR (arXiv 2512.05665, code XD111ds/ILVR); ``target_cells`` and
``group`` are this project's additions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from contracts.errors import InvalidRequest
from training.sample_fields import Fields
from training.zebra_rows import is_zebra_row, zebra_row

IMAGE_PLACEHOLDER = "<image>"
# Other names under which a row may say what it is about, and the subtasks of CoMT (arXiv 2412.12932), whose pictures
# lie in folders of these names.
SUBTASK_KEYS = ("subtask", "category", "task", "type")
COMT_SUBTASKS = ("creation", "deletion", "update", "selection")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStep:
    """Text that the assistant says."""

    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentStep:
    """A latent block and the picture it stands for.

    ``target_cells`` are indices of visual tokens of the helper image, row by row, in the order in which they are to be
    thought of. An addition of this project: None in published data, where the teacher selects.
    """

    helper_image: Path
    target_cells: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question with its pictures, the steps to its answer, and where it was read (``train.jsonl:12``).

    ``group`` is what results are broken down by: a maze size such as ``5x5``, or a subtask. ``map_desc`` are the rows
    of a VSP maze: 1 start, 2 goal, -1 hole, 0 free.
    """

    text_input: str
    images: tuple[Path, ...]
    steps: tuple[TextStep | LatentStep, ...]
    final_answer: str | None
    map_desc: tuple[tuple[int, ...], ...] | None
    group: str | None
    where: str


def question_parts(sample: Sample) -> list[str | Path]:
    """Texts and pictures of the question in order: each ``<image>`` gives way to its picture, else pictures come first.

    All other markup is kept. Empty texts are left out.

    Raises:
        InvalidRequest: there are placeholders, but not as many as pictures.
    """
    texts = sample.text_input.split(IMAGE_PLACEHOLDER)
    num_placeholders = len(texts) - 1
    if num_placeholders == 0:
        return [*sample.images, *([sample.text_input] if sample.text_input else [])]
    if num_placeholders != len(sample.images):
        raise InvalidRequest(
            f"{sample.where}: text_input has {num_placeholders} {IMAGE_PLACEHOLDER} for {len(sample.images)} pictures "
            "of image_input; give one for each picture, or none",
            param="text_input",
        )
    parts: list[str | Path] = [texts[0]]
    for image, text in zip(sample.images, texts[1:], strict=True):
        parts += [image, text]
    return [part for part in parts if part != ""]


def load_image(path: Path) -> Image.Image:
    """The picture as RGB, fully decoded.

    Raises:
        InvalidRequest: there is no such file, or it is no picture that can be read.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise InvalidRequest(f"{path}: there is no such picture") from None
    except UnidentifiedImageError:
        raise InvalidRequest(f"{path}: not a picture, or of a format that is not known here") from None
    # Each is what Pillow raises for some kind of damaged file.
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise InvalidRequest(f"{path}: the picture cannot be read ({error or type(error).__name__})") from error


def read_samples(
    file: Path, image_root: Path | None = None, *, check_images: bool = True, needs_steps: bool = True
) -> list[Sample]:
    """All samples of a JSONL file. Relative picture paths start at ``image_root``, by default the file's folder.

    ``check_images`` looks whether each picture is there, but opens none. ``needs_steps=False`` takes rows without a
    ``sequence_plan``, such as those of a test file.

    Raises:
        InvalidRequest: the first thing wrong, with file, line and field.
    """
    samples = []
    for found in scan_samples(file, image_root, check_images=check_images, needs_steps=needs_steps):
        if isinstance(found, InvalidRequest):
            raise found
        samples.append(found)
    return samples


def scan_samples(
    file: Path, image_root: Path | None = None, *, check_images: bool = True, needs_steps: bool = True
) -> Iterator[Sample | InvalidRequest]:
    """As ``read_samples``, but what is wrong with a row stands in its place, so that all problems can be listed.

    Raises:
        InvalidRequest: the file cannot be read, or holds no row.
    """
    root = file.parent if image_root is None else image_root
    num_rows = 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    num_rows += 1
                    fields = Fields(f"{file.name}:{number}", root, check_images)
                    try:
                        yield _sample(fields, fields.parse(line), needs_steps)
                    except InvalidRequest as error:
                        yield error
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror or error}") from None
    if num_rows == 0:
        raise InvalidRequest(f"{file}: the file is empty; it should hold one JSON object a line")


def _sample(fields: Fields, row: Mapping[str, Any], needs_steps: bool) -> Sample:
    if is_zebra_row(row):
        row = zebra_row(row, fields.where)
    images = tuple(fields.images(row.get("image_input"), "image_input"))
    map_desc = fields.map_desc(row.get("map_desc"), "map_desc")
    return Sample(
        text_input=fields.text(row, "text_input"),
        images=images,
        steps=_steps(fields, row.get("sequence_plan"), needs_steps),
        final_answer=fields.answer(row.get("original_final_answer"), "original_final_answer"),
        map_desc=map_desc,
        group=_group(fields, row, map_desc, images),
        where=fields.where,
    )


def _steps(fields: Fields, value: object, needs_steps: bool) -> tuple[TextStep | LatentStep, ...]:
    if value is None and not needs_steps:
        return ()
    items = fields.list_of(value, "sequence_plan")
    if not items and needs_steps:
        fields.fail("sequence_plan", "is empty; it needs at least one step")
    return tuple(_step(fields, item, f"sequence_plan[{index}]") for index, item in enumerate(items))


def _step(fields: Fields, item: object, name: str) -> TextStep | LatentStep:
    if not isinstance(item, dict):
        fields.fail(name, f"must be an object, not {fields.kind(item)}")
    match item.get("type"):
        case "text":
            return TextStep(content=fields.text(item, "content", f"{name}.content"))
        case "latent":
            return LatentStep(
                helper_image=fields.image(item.get("helper_image"), f"{name}.helper_image"),
                target_cells=fields.cells(item.get("target_cells"), f"{name}.target_cells"),
            )
        case other:
            fields.fail(f"{name}.type", f"must be 'text' or 'latent', not {other!r}")


def _group(
    fields: Fields, row: Mapping[str, Any], map_desc: tuple[tuple[int, ...], ...] | None, images: tuple[Path, ...]
) -> str | None:
    """``group`` if there is one; else a maze's size, a key that names a subtask, or the CoMT folder of the picture."""
    if row.get("group") is not None:
        return fields.text(row, "group")
    if map_desc is not None:
        return f"{len(map_desc)}x{len(map_desc[0])}"
    named = [row[key] for key in SUBTASK_KEYS if isinstance(row.get(key), str) and row[key]]
    folders = [part for path in images[:1] for part in reversed(path.parts) if part in COMT_SUBTASKS]
    return next(iter(named + folders), None)
