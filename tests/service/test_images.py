"""Image files are judged by their header: kind, bytes, pixels, and whether their end is there."""

import io
import random
import struct
import warnings
import zlib
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contracts.errors import NotAnImage
from service.image_header import ImageHeader, read_header
from tests.service.helpers import base64_image, check_error, picture

KINDS = {
    "png": ("image/png", picture(13, 7)),
    "png-palette": ("image/png", picture(13, 7, mode="P")),
    "png-rgba": ("image/png", picture(13, 7, mode="RGBA")),
    "png-interlaced": ("image/png", picture(13, 7, mode="1")),
    "jpeg": ("image/jpeg", picture(13, 7, "JPEG")),
    "jpeg-progressive": ("image/jpeg", picture(13, 7, "JPEG", progressive=True, icc_profile=b"x" * 100_000)),
    "jpeg-cmyk": ("image/jpeg", picture(13, 7, "JPEG", mode="CMYK")),
    "webp-lossy": ("image/webp", picture(13, 7, "WEBP")),
    "webp-lossless": ("image/webp", picture(13, 7, "WEBP", lossless=True)),
    "webp-extended": ("image/webp", picture(13, 7, "WEBP", exif=b"Exif\0\0x")),
    "gif": ("image/gif", picture(13, 7, "GIF")),
    "bmp": ("image/bmp", picture(13, 7, "BMP")),
    "bmp-palette": ("image/bmp", picture(13, 7, "BMP", mode="P")),
}


def animation(kind: str) -> bytes:
    file = io.BytesIO()
    first, second = (Image.effect_noise((13, 7), 50) for _ in range(2))
    first.save(file, kind, save_all=True, append_images=[second], comment=b"hello" if kind == "GIF" else b"")
    return file.getvalue()


def png_that_says(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", KINDS)
def test_kind_and_size_are_read_from_the_content(name: str) -> None:
    media_type, data = KINDS[name]
    assert read_header(data) == ImageHeader(media_type, 13, 7)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    header = read_header(animation(kind))
    assert (header.width, header.height) == (13, 7)


def test_a_gif_frame_that_sticks_out_grows_the_picture() -> None:
    data = bytearray(KINDS["gif"][1])
    frame = data.index(b"\x2c")
    data[6:10] = struct.pack("<HH", 1, 1)
    assert data[frame + 5 : frame + 9] == struct.pack("<HH", 13, 7)
    data[frame + 1 : frame + 5] = struct.pack("<HH", 60_000, 50_000)
    header = read_header(bytes(data))
    assert (header.width, header.height) == (60_013, 50_007)


@pytest.mark.parametrize("name", KINDS)
def test_no_part_of_a_file_passes_that_does_not_decode(name: str) -> None:
    """Cut at every byte: what is accepted must be decodable, and cuts of more than a few bytes are not accepted."""
    _, data = KINDS[name]
    step = max(1, len(data) // 400)
    for length in range(0, len(data), step):
        try:
            read_header(data[:length])
        except NotAnImage:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data[:length])).convert("RGB")
        assert len(data) - length <= 16


@pytest.mark.parametrize("name", KINDS)
def test_a_crafted_file_is_read_or_refused_and_nothing_else(name: str) -> None:
    _, data = KINDS[name]
    rng = random.Random(name)
    for _ in range(500):
        crafted = bytearray(data[:2000])
        for _ in range(rng.randint(1, 8)):
            crafted[rng.randrange(min(len(crafted), 200))] = rng.randrange(256)
        with suppress(NotAnImage):
            header = read_header(bytes(crafted))
            assert header.width >= 1
            assert header.height >= 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        b"\xff\xd8\xff" + b"\0" * 40,
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 2000,
        b"RIFF\x10\0\0\0WEBPANIM" + b"\0" * 40,
        b"GIF89a" + b"\0" * 40,
        b"GIF89a\x01\0\x01\0\0\0\0" + b"\x21\xfe\x01a\0" * 50 + b";",
        b"BM" + b"\0" * 60,
        b"II*\0" + b"\0" * 60,
        png_that_says(0, 5),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        read_header(data)


def jpeg_segments(data: bytes) -> list[bytes]:
    """From the first marker after the magic to the one that compressed data follows, which goes on to the end."""
    found, position = [], 2
    while data[position + 1] != 0xDA:
        length = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        found.append(data[position : position + length])
        position += length
    return [*found, data[position:]]


@given(st.data())
def test_fill_bytes_before_a_jpeg_marker_mean_nothing(drawn: st.DataObject) -> None:
    name = drawn.draw(st.sampled_from(["jpeg", "jpeg-progressive", "jpeg-cmyk"]))
    data = b"\xff\xd8"
    for segment in jpeg_segments(KINDS[name][1]):
        data += b"\xff" * drawn.draw(st.integers(0, 300)) + segment
    assert read_header(data) == ImageHeader("image/jpeg", 13, 7)


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 4, 100])
def test_fill_bytes_to_the_end_are_a_jpeg_that_is_cut_off(num_bytes: int) -> None:
    first, *_ = jpeg_segments(KINDS["jpeg"][1])
    for before in (b"\xff\xd8", b"\xff\xd8" + first):
        with pytest.raises(NotAnImage, match=r"image/jpeg file is cut off"):
            read_header(before + b"\xff" * num_bytes)


def test_fill_bytes_are_not_looked_at_one_by_one() -> None:
    """Ten million of them would hold all that this process does for a second."""

    class Counted(bytes):
        num_looks = 0

        def __getitem__(self, place: Any) -> Any:
            Counted.num_looks += 1
            return super().__getitem__(place)

    whole = KINDS["jpeg"][1]
    filled = Counted(whole[:2] + b"\xff" * 100_000 + whole[2:])
    assert read_header(filled) == ImageHeader("image/jpeg", 13, 7)
    assert Counted.num_looks < 1000


async def upload(client: httpx.AsyncClient, data: bytes, **headers: Any) -> httpx.Response:
    return await client.post("/v1/images", content=data, headers={"Content-Type": "image/png"} | headers)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (4_001, 100), (1_001, 1_000), (2**32 - 1, 2**32 - 1)])
async def test_too_many_pixels_are_refused_by_the_header(width: int, height: int, client: httpx.AsyncClient) -> None:
    message = check_error(await upload(client, png_that_says(width, height)), 413, "image_too_large", "image")
    assert f"{width} x {height}" in message


async def test_a_stripe_is_refused(client: httpx.AsyncClient) -> None:
    check_error(await upload(client, png_that_says(201, 1)), 422, "invalid_request", "image")
    assert (await upload(client, png_that_says(200, 1))).status_code == 200


async def test_too_many_bytes_are_refused(client: httpx.AsyncClient) -> None:
    data = picture(10, 10) + b"\0" * 200_000
    check_error(await upload(client, data), 413, "image_too_large", "image")


async def test_what_is_no_image_names_its_place(client: httpx.AsyncClient, runner: object) -> None:
    good = base64_image(picture())
    check_error(await upload(client, b"text"), 415, "not_an_image", "image")
    answer = await client.post("/v1/reason", json={"question": "?", "images": [good, base64_image(b"text")]})
    check_error(answer, 415, "not_an_image", "images.1.data")
    files = [("image", picture()), ("image", picture()[:-20])]
    answer = await client.post("/v1/reason", data={"question": "?"}, files=files)
    assert "cut off" in check_error(answer, 415, "not_an_image", "image.1")


async def test_the_label_is_not_trusted(client: httpx.AsyncClient, runner: object) -> None:
    image = base64_image(picture(4, 4, "JPEG"), media_type="text/html")
    assert (await client.post("/v1/reason", json={"question": "?", "images": [image]})).status_code == 200


@pytest.mark.parametrize("text", ["data:image/png;base64,AAAA", "AAA", "AA\nAA", "A-_A", "ÄÖ=="])
async def test_base64_is_strict(text: str, client: httpx.AsyncClient, runner: object) -> None:
    image = {"type": "base64", "data": text}
    answer = await client.post("/v1/reason", json={"question": "?", "images": [image]})
    assert "base64" in check_error(answer, 422, "invalid_request", "images.0.data")


async def test_an_image_that_is_not_stored(client: httpx.AsyncClient, runner: object) -> None:
    image = {"type": "ref", "id": "img_" + "0" * 64}
    answer = await client.post("/v1/reason", json={"question": "?", "images": [image]})
    check_error(answer, 404, "image_not_found", "images.0.id")


async def test_an_upload_is_one_file(client: httpx.AsyncClient) -> None:
    for files in ([], [("image", picture()), ("file", picture())], [("photo", picture())]):
        answer = await client.post("/v1/images", files=files, headers=_form_type(files))
        check_error(answer, 422 if files else 400, "invalid_request" if files else "malformed_body", _param(files))
    answer = await client.post("/v1/images", data={"image": "a.png"}, files={"x": b""})
    assert "-F image=@FILE" in check_error(answer, 422, "invalid_request", "image")


def _form_type(files: list[Any]) -> dict[str, str]:
    return {} if files else {"Content-Type": "multipart/form-data"}


def _param(files: list[Any]) -> str | None:
    return "image" if files else None
