"""What comes back from a call, typed. Each raises ``UnexpectedAnswer`` for what is not that."""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from contracts.jobs import ImageRef
from contracts.responses import Response
from ilvr.client.errors import UnexpectedAnswer
from ilvr.client.exchange import HttpAnswer

T = TypeVar("T")


class _Models(Struct):
    data: list[dict[str, Any]]


def response_of(answer: HttpAnswer) -> Response:
    return _decoded(answer, Response)


def image_of(answer: HttpAnswer) -> ImageRef:
    return _decoded(answer, ImageRef)


def models_of(answer: HttpAnswer) -> list[dict[str, Any]]:
    return _decoded(answer, _Models).data


def _decoded(answer: HttpAnswer, cls: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=cls)
    except msgspec.DecodeError as error:
        raise UnexpectedAnswer(f"{answer.url}: {error}; is that an ilvr server?", status=answer.status) from error
