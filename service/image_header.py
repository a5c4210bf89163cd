"""What a picture file says of itself: type, width, height, and whether its end is there. No pixel is decoded.

Read by hand, because opening a file in an image library may already allocate its canvas (WebP) or unpack its chunks.
Of an animated file only the first frame counts.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from contracts.errors import NotAnImage

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
JPEG_END = b"\xff\xd9"
JPEG_SOS = 0xDA
# Before a marker there may be any number of them; skipped in C, for a file may be nothing else.
JPEG_FILL = re.compile(rb"\xff+")
# Start-of-frame markers: 0xC0 to 0xCF without the three that mean something else.
JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A real file has a few dozen segments (an ICC profile at most 255); this only bounds the walk through a crafted one.
JPEG_MAX_SEGMENTS = 1000
GIF_MAX_BLOCKS = 1_000_000
BMP_UNCOMPRESSED = (0, 3, 6)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    media_type: str
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader:
    """By content, never by name or label. Raises ``NotAnImage``."""
    for magic, offset, media_type, read_size in _FORMATS:
        if data[offset : offset + len(magic)] == magic:
            try:
                width, height = read_size(data)
            except (struct.error, IndexError):
                raise _cut_off(media_type) from None
            if width < 1 or height < 1:
                raise NotAnImage(f"The {media_type} file says it is {width} x {height} pixels.")
            return ImageHeader(media_type, width, height)
    raise NotAnImage("This is no PNG, JPEG, WebP, GIF or BMP file.")


def _png(data: bytes) -> tuple[int, int]:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise NotAnImage("The image/png file has no header chunk.")
    if PNG_END not in data:
        raise _cut_off("image/png")
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    size, position = None, 2
    for _ in range(JPEG_MAX_SEGMENTS):
        if fill := JPEG_FILL.match(data, position):
            position = fill.end() - 1  # the last one belongs to the marker
        if data[position] != 0xFF:
            raise NotAnImage("The image/jpeg file is damaged: a segment does not begin where the last one ends.")
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in JPEG_SOF:
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = width, height
        if marker == JPEG_SOS:
            break
        position += 2 + length
    if size is None:
        raise NotAnImage("The image/jpeg file has no frame header.")
    # Inside compressed data 0xFF is always followed by 0x00 or a restart marker, so the first hit is the real end.
    if data.find(JPEG_END, position) < 0:
        raise _cut_off("image/jpeg")
    return size


def _webp(data: bytes) -> tuple[int, int]:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        width, height = (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
    else:
        raise NotAnImage("The image/webp file holds no picture.")
    if riff_size + 8 > len(data):
        raise _cut_off("image/webp")
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _gif_palette_bytes(flags)
    for _ in range(GIF_MAX_BLOCKS):
        kind = data[position]
        if kind == 0x21:  # extension: label, sub-blocks
            position = _gif_after_sub_blocks(data, position + 2)
        elif kind == 0x2C:  # the first frame; decoders grow the canvas if it sticks out
            left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, position + 1)
            _gif_after_sub_blocks(data, position + 10 + _gif_palette_bytes(flags) + 1)
            return max(width, left + frame_width), max(height, top + frame_height)
        else:
            break
    raise NotAnImage("The image/gif file holds no picture.")


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_after_sub_blocks(data: bytes, position: int) -> int:
    for _ in range(GIF_MAX_BLOCKS):
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise NotAnImage("The image/gif file has too many blocks.")


def _bmp(data: bytes) -> tuple[int, int]:
    offset, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    row_bytes = (width * bits + 31) // 32 * 4
    if compression in BMP_UNCOMPRESSED and offset + row_bytes * abs(height) > len(data):
        raise _cut_off("image/bmp")
    return width, abs(height)  # negative: rows run from the top


def _cut_off(media_type: str) -> NotAnImage:
    return NotAnImage(f"The {media_type} file is cut off: its end is missing.")


_FORMATS: tuple[tuple[bytes, int, str, Callable[[bytes], tuple[int, int]]], ...] = (
    (PNG_MAGIC, 0, "image/png", _png),
    (b"\xff\xd8\xff", 0, "image/jpeg", _jpeg),
    (b"WEBP", 8, "image/webp", _webp),
    (b"GIF87a", 0, "image/gif", _gif),
    (b"GIF89a", 0, "image/gif", _gif),
    (b"BM", 0, "image/bmp", _bmp),
)
