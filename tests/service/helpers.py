"""Pictures to send and streams to read."""

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from PIL import Image


def picture(width: int = 4, height: int = 3, kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).convert(mode).save(file, kind, **options)
    return file.getvalue()


def base64_image(data: bytes, **fields: Any) -> dict[str, Any]:
    return {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data).decode(), **fields}


class Frame:
    """One event as it came: its ``id:`` and ``event:`` lines, and the object of its ``data:`` line."""

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        assert [line.partition(": ")[0] for line in lines] == ["id", "event", "data"]
        self.id, self.event, data = (line.partition(": ")[2] for line in lines)
        self.data: dict[str, Any] = json.loads(data)
        assert self.data["type"] == self.event
        assert str(self.data["sequence_number"]) == self.id


def frames(body: str) -> list[Frame]:
    """Of a whole stream, pings left out."""
    assert body == "" or body.endswith("\n\n")
    return [Frame(part) for part in body.split("\n\n")[:-1] if not part.startswith(":")]


async def live_parts(response: httpx.Response) -> AsyncIterator[str]:
    """The parts of a stream as they arrive, pings included."""
    waiting = ""
    async for text in response.aiter_text():
        waiting += text
        while "\n\n" in waiting:
            part, _, waiting = waiting.partition("\n\n")
            yield part


async def live_frames(response: httpx.Response) -> AsyncIterator[Frame]:
    async for part in live_parts(response):
        if not part.startswith(":"):
            yield Frame(part)


def check_error(response: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    """One shape for all of them; returns the message."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    error: dict[str, str] = response.json()["error"]
    assert sorted(error) == ["code", "message", "param", "request_id", "type"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["request_id"] == response.headers["x-request-id"] != ""
    assert error["message"]
    return error["message"]
