"""Picture files into RGB, exactly as the published code reads them."""

from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from contracts.errors import NotAnImage
from contracts.jobs import StoredImage
from model_runner.engine.base import EngineImage


def decode_image(stored: StoredImage) -> EngineImage:
    """PIL's ``convert("RGB")``: alpha is dropped, orientation tags are not applied. Raises ``NotAnImage``.

    The copy through an array leaves the file's metadata behind, which vLLM's loader would otherwise act on.
    """
    try:
        with Image.open(BytesIO(stored.data)) as opened:
            rgb = Image.fromarray(np.asarray(opened.convert("RGB")))
    except (
        UnidentifiedImageError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise NotAnImage(f"image {stored.ref.id} cannot be decoded: {error}", param="images") from error
    return EngineImage(id=stored.ref.id, rgb=rgb)
