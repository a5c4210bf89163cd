"""Pictures of samples: decoded, or only measured. What is wrong with one names the sample's line and the file."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from contracts.errors import InvalidRequest
from training.samples import load_image


def load_pictures(processor: Qwen2VLImageProcessorPil, paths: Sequence[Path], where: str) -> list[Image.Image]:
    """All of them decoded, of sizes that the processor takes. where: of the sample, as ``train.jsonl:12``.

    Raises:
        InvalidRequest: one cannot be read, or is too long and thin.
    """
    pictures = []
    for path in paths:
        try:
            picture = load_image(path)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: {error}") from error
        _num_patches(processor, picture.size, path, where)
        pictures.append(picture)
    return pictures


def count_visual_tokens(processor: Qwen2VLImageProcessorPil, path: Path, where: str) -> int:
    """Of a picture of which only the header is read.

    Raises:
        InvalidRequest: as for ``load_pictures``, as far as a header shows it.
    """
    try:
        with Image.open(path) as picture:
            size = picture.size
    # Each is what Pillow raises for some kind of damaged header.
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InvalidRequest(f"{where}: {path}: the picture cannot be read ({error})") from None
    return _num_patches(processor, size, path, where) // int(processor.merge_size) ** 2


def _num_patches(processor: Qwen2VLImageProcessorPil, size: tuple[int, int], path: Path, where: str) -> int:
    width, height = size
    try:
        num_patches: int = processor.get_number_of_image_patches(height, width)
    except ValueError as error:  # Qwen2-VL resizes no picture of which one side is more than 200 times the other
        raise InvalidRequest(
            f"{where}: {path}: a picture of {width} x {height} is too long and thin for the model ({error}); crop it"
        ) from error
    return num_patches
