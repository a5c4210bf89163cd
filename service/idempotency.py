"""``Idempotency-Key``: a request that is sent again with its key is the same request."""

import hashlib
import re

import msgspec
from starlette.datastructures import Headers

from contracts.errors import InvalidRequest
from contracts.jobs import Idempotency, Job
from service.schemas import ReasonRequest

HEADER = "Idempotency-Key"
VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")


def read_key(headers: Headers) -> str | None:
    """Raises ``InvalidRequest``."""
    key = headers.get(HEADER)
    if key is not None and not VISIBLE_ASCII.fullmatch(key):
        raise InvalidRequest(f"{HEADER}: 1 to 255 visible ASCII characters are expected.", param=HEADER)
    return key


def identify(key: str | None, request: ReasonRequest, job: Job) -> Idempotency | None:
    """The key and what it was sent with: what the caller asked, each image by the hash of its bytes.

    Not whether the answer is streamed: who lost a stream may come back for the object. Nor what the server adds, such
    as the model where none was named: another gateway may choose another one.
    """
    if key is None:
        return None
    asked = msgspec.structs.replace(
        job,
        response_id="",
        created_at=0,
        model=request.model or "",
        timeout_s=request.timeout_s,
        owner="",
        request_id="",
        trace={},
    )
    return Idempotency(key=key, body_sha256=hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest())
