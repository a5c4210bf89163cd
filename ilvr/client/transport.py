"""How both clients speak HTTP."""

import os
from typing import Any

import httpx

from contracts.errors import InvalidRequest
from ilvr.client.exchange import HttpAnswer, HttpRequest
from ilvr.defaults import DEFAULT_URL

# The server pings a stream every 10 s; three missed pings are a dead connection.
READ_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
CANCEL_TIMEOUT_S = 5.0
URL_VARIABLE = "ILVR_URL"
KEY_VARIABLE = "ILVR_API_KEY"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def settings(url: str | None, api_key: str | None, read_timeout_s: float) -> dict[str, Any]:
    """Arguments of ``httpx.Client``. Raises ``InvalidRequest``: the URL is none."""
    url = os.environ.get(URL_VARIABLE, DEFAULT_URL) if url is None else url
    try:
        base_url = httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"{url}: {error}") from None
    if base_url.scheme not in ("http", "https") or not base_url.host:
        raise InvalidRequest(f"{url} is not the address of a server; write it like http://127.0.0.1:8000")
    key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
    return {
        "base_url": base_url,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S),
        "limits": httpx.Limits(max_connections=None),  # how many questions are asked at once is not ours to bound
        # A proxy that the environment names is not asked about this machine.
        "trust_env": base_url.host not in LOOPBACK,
    }


def arguments(request: HttpRequest) -> dict[str, Any]:
    """Of ``httpx.Client.request``."""
    body = {"json": request.json} if request.json is not None else {"content": request.content}
    return {"method": request.method, "url": request.path, "headers": dict(request.headers), **body}


def heard(answer: httpx.Response, body: bytes = b"") -> HttpAnswer:
    return HttpAnswer(str(answer.url), answer.status_code, answer.headers, body)
