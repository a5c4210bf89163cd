"""The body of ``POST /v1/reason`` and ``POST /v1/images``: JSON, a form, or a bare image file."""

import errno
import logging
import tempfile
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from contracts.errors import InvalidRequest, MalformedBody, Overloaded
from contracts.jobs import Turn
from service.schemas import ReasonRequest, parse_fields, parse_json

log = logging.getLogger(__name__)

IMAGE_PART = "image"
# Of a form; a real one has about fifteen.
MAX_FORM_FIELDS = 100
REPEATED_FIELDS = frozenset({"stop"})


@dataclass(frozen=True, slots=True)
class ReasonBody:
    """``uploads`` are the file parts of a form; a form has no ``request.images``.

    history: what was said before, where the request says it itself; its images come first in ``request.images``.
    image_params: what the caller knows each of ``request.images`` by, where that is not its place in ``images``.
    """

    request: ReasonRequest
    uploads: tuple[bytes, ...] = ()
    image_params: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()


async def read_reason_body(request: Request, max_images: int) -> ReasonBody:
    """Raises ``MalformedBody``, ``InvalidRequest``, ``BodyTooLarge``, ``BodyTooSlow``."""
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await _read_form(request, max_images)
    if kind in ("application/json", ""):
        return ReasonBody(parse_json(await request.body()))
    raise MalformedBody(
        f"Content-Type is {kind}; send application/json (curl: -H 'Content-Type: application/json') "
        "or multipart/form-data (curl: -F)."
    )


async def read_image_body(request: Request) -> bytes:
    """One file: the part ``image`` or ``file`` of a form, or the whole body. Raises as above."""
    if media_type(request) != "multipart/form-data":
        return await request.body()
    form = await _form(request)
    try:
        files = [value for name, value in form.multi_items() if name in (IMAGE_PART, "file")]
        if len(files) != 1:
            raise InvalidRequest(f"image: one file is expected, found {len(files)}.", param=IMAGE_PART)
        return await _file_bytes(files[0], IMAGE_PART)
    finally:
        await form.close()


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_form(request: Request, max_images: int) -> ReasonBody:
    form = await _form(request)
    try:
        fields: dict[str, Any] = {}
        files = []
        for name, value in form.multi_items():
            if name == IMAGE_PART:
                files.append(value)
            elif isinstance(value, UploadFile):
                raise InvalidRequest(f"{name}: only {IMAGE_PART} parts are files.", param=name)
            else:
                _set_field(fields, name, value)
        check_image_count(len(files), max_images, IMAGE_PART)
        parsed = parse_fields(fields)
        if parsed.images:
            raise InvalidRequest("images: in a form, send pictures as file parts named image.", param="images")
        uploads = [await _file_bytes(value, f"{IMAGE_PART}.{index}") for index, value in enumerate(files)]
        return ReasonBody(parsed, tuple(uploads))
    finally:
        await form.close()


def check_image_count(num_images: int, max_images: int, param: str) -> None:
    """Raises ``InvalidRequest``."""
    if num_images > max_images:
        raise InvalidRequest(f"{param}: {num_images} images, at most {max_images} are allowed.", param=param)


async def _form(request: Request) -> FormData:
    try:
        # The number of files is checked by name later, with a better message; their bytes are bounded by the body's.
        return await request.form(max_files=MAX_FORM_FIELDS, max_fields=MAX_FORM_FIELDS)
    except HTTPException as error:
        raise MalformedBody(f"The form cannot be read: {error.detail}.") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Files of a form lie in the folder for temporary files until they are read.
        log.error("no space is left in %s for an upload", tempfile.gettempdir())
        raise Overloaded("There is no room for this upload at the moment.") from None


async def _file_bytes(value: UploadFile | str, param: str) -> bytes:
    if isinstance(value, str):
        raise InvalidRequest(f"{param}: a file part is expected; with curl: -F image=@FILE.", param=param)
    return await value.read()


def _set_field(fields: dict[str, Any], name: str, value: str) -> None:
    """``latent.mode`` is ``{"latent": {"mode": …}}``. An empty value other than the question's is an absent one."""
    if value == "" and name != "question":
        return
    parent, _, child = name.partition(".")
    if child:
        nested = fields.setdefault(parent, {})
        if not isinstance(nested, dict) or child in nested:
            raise InvalidRequest(f"{name}: given twice.", param=name)
        nested[child] = value
    elif name in REPEATED_FIELDS:
        fields.setdefault(name, []).append(value)
    elif name in fields:
        raise InvalidRequest(f"{name}: given twice.", param=name)
    else:
        fields[name] = value
