"""The requests of the API, from the arguments of a call."""

import math
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from contracts.errors import InvalidRequest
from ilvr.client.exchange import HttpRequest
from ilvr.client.pictures import Picture, PictureFile, as_inputs, file_bytes


class Options(TypedDict, total=False):
    """Fields of ``POST /v1/reason``. What is left out, or None, is decided by the checkpoint."""

    model: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    seed: int | None
    stop: str | list[str] | None
    latent: Literal["on", "off"] | None
    timeout_s: float | None
    metadata: Mapping[str, str] | None
    previous_response_id: str | None


def question_body(images: Iterable[Picture], question: str, options: Options) -> dict[str, Any]:
    """Raises ``InvalidRequest``: a file cannot be read, or a value cannot be sent as JSON."""
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise InvalidRequest("the question is not valid UTF-8", param="question")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(f"{name} must be a finite number, not {value}", param=name)
    if "latent" in given:
        given["latent"] = {"mode": given["latent"]}
    return {"question": question, "images": as_inputs(images), **given}


def background(images: Iterable[Picture], question: str, options: Options) -> HttpRequest:
    """Answered at once. The key makes it safe to send again when the answer was lost on its way."""
    body = {**question_body(images, question, options), "background": True}
    return HttpRequest("POST", "/v1/reason", json=body, headers={"Idempotency-Key": secrets.token_hex(16)})


def response(response_id: str) -> HttpRequest:
    return HttpRequest("GET", f"/v1/reason/{response_id}")


def cancel(response_id: str) -> HttpRequest:
    return HttpRequest("POST", f"/v1/reason/{response_id}/cancel")


def upload(picture: PictureFile) -> HttpRequest:
    headers = {"Content-Type": "application/octet-stream"}
    return HttpRequest("POST", "/v1/images", content=file_bytes(picture), headers=headers)


MODELS = HttpRequest("GET", "/v1/models")
