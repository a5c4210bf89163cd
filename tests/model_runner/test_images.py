"""Picture files into RGB, and how many tokens a picture takes."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from contracts.errors import InvalidRequest, NotAnImage
from contracts.jobs import ImageRef, StoredImage
from model_runner.image_processor import ImageSizes
from model_runner.images import decode_image
from tests.model_runner.folders import MAZE_TINY
from tests.parity.traces import GOLDEN, read_traces


def stored(data: bytes) -> StoredImage:
    return StoredImage(ref=ImageRef(id="img_x", width=2, height=1), media_type="image/png", data=data)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> list[list[tuple[int, ...]]]:
    rgb = decode_image(stored(data)).rgb
    assert rgb.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(rgb).tolist()]


def test_rgb_as_it_is() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    assert pixels(encoded(image)) == [[(1, 2, 3), (4, 5, 6)]]
    assert decode_image(stored(encoded(image))).id == "img_x"


def test_alpha_is_dropped_not_composited() -> None:
    """A transparent pixel keeps its colour; on white it would be white."""
    image = Image.new("RGBA", (2, 1), (200, 10, 20, 0))
    image.putpixel((1, 0), (1, 2, 3, 128))
    assert pixels(encoded(image)) == [[(200, 10, 20), (1, 2, 3)]]


def test_grey_with_alpha() -> None:
    assert pixels(encoded(Image.new("LA", (1, 1), (7, 0)))) == [[(7, 7, 7)]]


def test_a_palette() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image)) == [[(10, 20, 30), (40, 50, 60)]]
    assert pixels(encoded(image, transparency=1)) == [[(10, 20, 30), (40, 50, 60)]]


def test_one_bit() -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image)) == [[(0, 0, 0), (255, 255, 255)]]


def test_sixteen_bit_colour() -> None:
    """Written by hand, because PIL writes none: it keeps the high byte of each sample."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">3H", 0x1234, 0x00FF, 0xFF00)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert pixels(png) == [[(0x12, 0x00, 0xFF)]]


def test_an_orientation_tag_is_not_obeyed_and_does_not_travel() -> None:
    """The published code does not turn pictures; vLLM's loader would, if the tag came with the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    data = encoded(Image.new("RGB", (30, 10), (9, 9, 9)), "JPEG", exif=exif)
    assert Image.open(BytesIO(data)).getexif()[0x0112] == 6
    rgb = decode_image(stored(data)).rgb
    assert rgb.size == (30, 10)
    assert not rgb.getexif()
    assert not rgb.info


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (1, 1), color) for color in ((255, 0, 0), (0, 255, 0))]
    assert pixels(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [[(255, 0, 0)]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_cut_file_is_no_image(kind: str) -> None:
    whole = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), kind)
    for length in (0, 1, 8, len(whole) // 2):
        with pytest.raises(NotAnImage, match="img_x") as caught:
            decode_image(stored(whole[:length]))
        assert caught.value.param == "images"


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"])
def test_something_else_is_no_image(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        decode_image(stored(data))


class TestSizes:
    SIZES = ImageSizes(str(MAZE_TINY))

    @pytest.mark.parametrize(
        ("size", "num_tokens"),
        [
            ((84, 84), 9),  # a 3 x 3 maze: one token a cell of 28 pixels
            ((168, 168), 36),
            ((56, 112), 8),
            ((1, 1), 4),  # enlarged to 56 x 56, the least of 3136 pixels
            ((90, 90), 9),  # to the nearest multiple of 28
        ],
    )
    def test_tokens(self, size: tuple[int, int], num_tokens: int) -> None:
        assert self.SIZES.num_tokens(size) == num_tokens

    def test_too_narrow(self) -> None:
        with pytest.raises(InvalidRequest, match="1000 x 4 pixels") as caught:
            self.SIZES.num_tokens((1000, 4))
        assert caught.value.param == "images"

    def test_as_recorded(self) -> None:
        """Prompts with their images, counted by the published processor."""
        sizes = ImageSizes(str(GOLDEN / "tok"))
        for trace in read_traces("b"):
            expected = len(trace.expanded_ids) - len(trace.prompt_ids) + len(trace.files)
            assert sum(sizes.num_tokens(image.rgb.size) for image in trace.images) == expected
