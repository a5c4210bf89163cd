"""The checkpoint's image processor: PIL's, whatever torchvision is installed.

The torchvision one differs by up to 0.03 per pixel value, which is more than the smallest logit gaps of the recorded
traces bear.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from contracts.errors import InvalidRequest

if TYPE_CHECKING:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


@lru_cache(maxsize=4)
def load_image_processor(folder: str) -> "Qwen2VLImageProcessorPil":
    """Shared: it has no state. Imports transformers and torch, which takes seconds."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(folder)


class ImageSizes:
    """How many tokens an image takes, from its size alone."""

    def __init__(self, folder: str) -> None:
        self._processor = load_image_processor(folder)

    def num_tokens(self, size: tuple[int, int]) -> int:
        """size: (width, height) in pixels. Raises ``InvalidRequest`` for a picture too narrow to be resized."""
        width, height = size
        try:
            num_patches: int = self._processor.get_number_of_image_patches(height, width)
        except ValueError as error:
            raise InvalidRequest(f"an image of {width} x {height} pixels: {error}", param="images") from error
        return num_patches // self._processor.merge_size**2
