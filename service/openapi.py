"""The OpenAPI page: requests are described by pydantic, answers and events by msgspec, as they are made."""

from typing import Any

import msgspec
from fastapi import FastAPI

from contracts.events import Event
from contracts.jobs import ImageRef
from contracts.responses import Response
from service.errors import ErrorBody
from service.openai.objects import ChatChunk, ChatCompletion
from service.openai.responses_schemas import ResponsesRequest
from service.openai.schemas import ChatRequest
from service.schemas import ReasonRequest

REF = "#/components/schemas/"


def _json_of(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF + name}}}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json_of("ErrorBody")}


Answers = dict[int | str, dict[str, Any]]

_STREAM_CONTENT = {"text/event-stream": {"schema": {"$ref": REF + "Event"}}}
_NOT_FOUND: Answers = {404: _error("No such response (any more)")}

ANSWER: Answers = {
    200: {"description": "The response object", "content": _json_of("Response")},
    **_NOT_FOUND,
}
STREAM: Answers = {
    200: {"description": "One event after another; `data` is one of these objects", "content": _STREAM_CONTENT},
    204: {"description": "There are no events after that one and there will be none"},
    **_NOT_FOUND,
    422: _error("Not a sequence number"),
}
ANSWER_OR_STREAM: Answers = {
    200: {"description": "The response object, or its events", "content": {**_json_of("Response"), **_STREAM_CONTENT}},
    400: _error("The body is no JSON object, or no form"),
    404: _error("No such model or stored image"),
    408: _error("The body did not come in time"),
    413: _error("Body, image or prompt too large"),
    415: _error("Not an image"),
    422: _error("A field is wrong, unknown, or not supported yet"),
    409: _error("The idempotency key came with another request before, or the previous response has not ended"),
    429: _error("The queue is full, or the key's rate or number of open responses is reached; see `Retry-After`"),
    500: _error("Generation failed"),
    503: _error("No model is ready, or it was lost on the way; see `Retry-After`"),
    504: _error("The request's own `timeout_s` is over"),
}
_OBJECT = {"type": "object"}
_CHUNKS = {"text/event-stream": {"schema": {"$ref": REF + "ChatChunk"}}}
COMPLETION_OR_STREAM: Answers = {
    **ANSWER_OR_STREAM,
    200: {"description": "The completion, or its chunks", "content": {**_json_of("ChatCompletion"), **_CHUNKS}},
}
RESPONSE_OR_STREAM: Answers = {
    **ANSWER_OR_STREAM,
    200: {
        "description": "OpenAI's response object, or its events",
        "content": {"application/json": {"schema": _OBJECT}, "text/event-stream": {"schema": _OBJECT}},
    },
}
STORED_IMAGE: Answers = {
    200: {"description": "Its id and size", "content": _json_of("ImageRef")},
    408: _error("The file did not come in time"),
    413: _error("Too many bytes or pixels"),
    415: _error("Not an image"),
    429: _error("The image store is full of images in use, or the key's rate is reached; see `Retry-After`"),
}

_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": ["question"],
    "properties": {
        "image": {"type": "array", "items": _FILE, "description": "File parts, in order"},
        "question": {"type": "string"},
        "stream": {"type": "boolean"},
        "max_tokens": {"type": "integer"},
        "temperature": {"type": "number"},
        "top_p": {"type": "number"},
        "top_k": {"type": "integer"},
        "repetition_penalty": {"type": "number"},
        "seed": {"type": "integer"},
        "stop": {"type": "array", "items": {"type": "string"}},
        "latent.mode": {"type": "string", "enum": ["on", "off"]},
        "model": {"type": "string"},
        "background": {"type": "boolean"},
        "timeout_s": {"type": "number"},
    },
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "The same key with the same body is the same request: it is answered once.",
}
REASON_BODY: dict[str, Any] = {
    "parameters": [_IDEMPOTENCY_KEY],
    "requestBody": {
        "required": True,
        "content": {**_json_of("ReasonRequest"), "multipart/form-data": {"schema": _FORM}},
    },
}
CHAT_BODY: dict[str, Any] = {
    "parameters": [_IDEMPOTENCY_KEY],
    "requestBody": {"required": True, "content": _json_of("ChatRequest")},
}
RESPONSES_BODY: dict[str, Any] = {
    "parameters": [_IDEMPOTENCY_KEY],
    "requestBody": {"required": True, "content": _json_of("ResponsesRequest")},
}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": {"image": _FILE}}},
            "image/*": {"schema": _FILE},
        },
    }
}


class DescribedApp(FastAPI):
    """FastAPI, with the schemas of what its routes read and write by hand."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            described = super().openapi()
            _drop_fastapi_errors(described)
            schemas = described.setdefault("components", {}).setdefault("schemas", {})
            for body in (ReasonRequest, ChatRequest, ResponsesRequest):
                request = body.model_json_schema(ref_template=REF + "{model}")
                schemas.update(request.pop("$defs", {}))
                schemas[body.__name__] = request
            (event, *_), answers = msgspec.json.schema_components(
                [Event, Response, ImageRef, ErrorBody, ChatCompletion, ChatChunk], ref_template=REF + "{name}"
            )
            schemas.update(answers)
            schemas["Event"] = event
            _ask_for_keys(described)
        return super().openapi()


def _ask_for_keys(described: dict[str, Any]) -> None:
    """Where keys are on; the page then has a field for one."""
    described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in described["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["security"] = [{"key": []}, {}]
                operation["responses"] |= {
                    "401": _error("Where keys are on: no API key, or an unknown one"),
                    "403": _error("The key lacks the scope, or the URL of an image is not allowed"),
                }


def _drop_fastapi_errors(described: dict[str, Any]) -> None:
    """FastAPI describes a 422 of its own wherever there is a parameter; ours has another shape."""
    for path in described["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        described.get("components", {}).get("schemas", {}).pop(name, None)
