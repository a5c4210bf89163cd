"""From what pydantic found wrong to one error that names the field and says what to do."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contracts.errors import InvalidRequest, MalformedBody, RequestError

# Pydantic puts the tag of a union member into the path of an error; a caller has no such field.
UNION_TAGS = frozenset({"base64", "ref", "url"})


def body_error(errors: Sequence[Mapping[str, Any]], known_fields: Iterable[str]) -> RequestError:
    """For a JSON body."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return MalformedBody(f"The body is not JSON: {first['ctx']['error']}.")
    if not first["loc"]:
        return MalformedBody("The body must be a JSON object.")
    return invalid_request(errors, known_fields=known_fields)


def invalid_request(
    errors: Sequence[Mapping[str, Any]], *, known_fields: Iterable[str] = (), skip_first: str | None = None
) -> InvalidRequest:
    """The first error in words; the others are counted."""
    first = errors[0]
    param = dotted(first["loc"], skip_first)
    message = f"{param}: {_message(first, known_fields)}."
    if len(errors) > 1:
        message += f" ({len(errors) - 1} more field{'s' if len(errors) > 2 else ''} at fault.)"
    return InvalidRequest(message, param=param)


def dotted(path: Sequence[str | int], skip_first: str | None = None) -> str:
    """``("images", 0, "base64", "data")`` → ``images.0.data``."""
    parts = list(path[1:] if path and path[0] == skip_first else path)
    if len(parts) > 2 and isinstance(parts[1], int) and parts[2] in UNION_TAGS:
        del parts[2]
    return ".".join(str(part) for part in parts)


def _message(error: Mapping[str, Any], known_fields: Iterable[str]) -> str:
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), known_fields, n=1)
        return "there is no such field" + (f"; did you mean {close[0]!r}?" if close else "")
    if error["type"] == "missing":
        return "this field is required"
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return text.rstrip(".")
