"""From bytes that somebody sent to an image that the broker may keep."""

import asyncio
import base64
import binascii
import hashlib

from contracts.errors import ImageTooLarge, InvalidRequest, NotAnImage
from contracts.jobs import ImageRef, StoredImage
from service.image_header import ImageHeader, read_header
from service.settings import BASE64_GROWTH, ServiceSettings

# Below this, decoding base64 and hashing take less than the hop to a thread and back is worth.
INLINE_BYTES = 256 * 1024


async def check_image(data: bytes, settings: ServiceSettings, param: str) -> StoredImage:
    """Type, bytes and pixels, from the header alone; the id is the hash of the file.

    Raises ``ImageTooLarge``, ``NotAnImage``, ``InvalidRequest``.
    """
    if len(data) > settings.image_max_bytes:
        limit = settings.image_max_bytes
        raise ImageTooLarge(f"{param}: the file has {len(data)} bytes; {limit} are allowed.", param=param)
    try:
        header, digest = _identify(data) if len(data) < INLINE_BYTES else await asyncio.to_thread(_identify, data)
    except NotAnImage as error:
        raise NotAnImage(f"{param}: {error}", param=param) from None
    _check_size(header, settings, param)
    ref = ImageRef(id=f"img_{digest}", width=header.width, height=header.height)
    return StoredImage(ref=ref, media_type=header.media_type, data=data)


def _check_size(header: ImageHeader, settings: ServiceSettings, param: str) -> None:
    long, short = max(header.width, header.height), min(header.width, header.height)
    size = f"{param}: the image is {header.width} x {header.height} pixels"
    if long > settings.image_max_side:
        raise ImageTooLarge(f"{size}; a side has at most {settings.image_max_side}.", param=param)
    if long * short > settings.image_max_pixels:
        raise ImageTooLarge(f"{size}; at most {settings.image_max_pixels} in all are allowed.", param=param)
    if long > short * settings.image_max_aspect_ratio:
        limit = settings.image_max_aspect_ratio
        raise InvalidRequest(f"{size}; one side is at most {limit:g} times the other.", param=param)


async def decode_base64(text: str, settings: ServiceSettings, param: str) -> bytes:
    """Raises ``InvalidRequest``, ``ImageTooLarge``."""
    if text.startswith("data:"):
        raise InvalidRequest(
            f"{param}: plain base64 is expected; leave out everything up to and including 'base64,'.", param=param
        )
    if len(text) > settings.image_max_bytes * BASE64_GROWTH + 4:
        raise ImageTooLarge(f"{param}: the file has more than {settings.image_max_bytes} bytes.", param=param)
    try:
        return _decode(text) if len(text) < INLINE_BYTES else await asyncio.to_thread(_decode, text)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"{param}: not base64 (the standard alphabet, padded with '=', no line breaks).", param=param
        ) from None


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _identify(data: bytes) -> tuple[ImageHeader, str]:
    return read_header(data), hashlib.sha256(data).hexdigest()
