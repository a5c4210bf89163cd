"""Pictures in any form that is at hand, as the API takes them."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from contracts.errors import InvalidRequest
from contracts.jobs import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

PictureFile: TypeAlias = "str | Path | bytes | Image"
"""A path, the bytes of a file, or a Pillow image."""

Picture: TypeAlias = "PictureFile | ImageRef"
"""Also an uploaded picture; a string may be the URL of one."""


def as_inputs(pictures: Iterable[Picture]) -> list[dict[str, str]]:
    """The ``images`` of a request. Raises ``InvalidRequest`` for what is no picture."""
    if isinstance(pictures, str | bytes | Path):
        raise InvalidRequest("images is a list of pictures; write [picture] for one.", param="images")
    return [_input(picture) for picture in pictures]


def _input(picture: Picture) -> dict[str, str]:
    if isinstance(picture, ImageRef):
        return {"type": "ref", "id": picture.id}
    if isinstance(picture, str) and picture.startswith(("https://", "http://")):
        return {"type": "url", "url": picture}
    return {"type": "base64", "data": base64.b64encode(file_bytes(picture)).decode()}


def file_bytes(picture: PictureFile) -> bytes:
    """The file; a Pillow image becomes a PNG. Raises ``InvalidRequest``."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | Path):
        try:
            return Path(picture).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{picture}: {error.strerror}") from None
    if not hasattr(picture, "save"):
        raise InvalidRequest(f"{type(picture).__name__} is no picture: give a path, bytes, a Pillow image or a URL.")
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
