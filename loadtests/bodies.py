"""The bytes of each kind of request, in the server's own format and in OpenAI's."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from loadtests.mix import Ask
from loadtests.profile import Profile

REASON, CHAT = "/v1/reason", "/v1/chat/completions"
BOUNDARY = "ilvr-load"


@dataclass(frozen=True, slots=True)
class Posted:
    path: str
    content_type: str
    body: bytes
    is_stream: bool


def posted(ask: Ask, profile: Profile, model: str) -> Posted:
    """The request of an ask. ``model`` is what OpenAI's format names."""
    if ask.kind == "form":
        return Posted(REASON, f"multipart/form-data; boundary={BOUNDARY}", _form(ask, profile), is_stream=False)
    is_stream = ask.kind in ("stream", "chat_stream")
    if ask.kind in ("chat", "chat_stream"):
        return Posted(CHAT, "application/json", _json(_chat(ask, profile, model, is_stream)), is_stream)
    return Posted(REASON, "application/json", _json(_reason(ask, profile, is_stream)), is_stream)


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def _sampling(profile: Profile) -> dict[str, Any]:
    return {} if profile.temperature is None else {"temperature": profile.temperature}


def _reason(ask: Ask, profile: Profile, is_stream: bool) -> dict[str, Any]:
    image = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(ask.picture).decode()}
    return {
        "question": ask.question,
        "images": [image],
        "stream": is_stream,
        "max_tokens": profile.max_tokens,
        **_sampling(profile),
    }


def _chat(ask: Ask, profile: Profile, model: str, is_stream: bool) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(ask.picture).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": ask.question}]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_completion_tokens": profile.max_tokens,
        "stream": is_stream,
        **({"stream_options": {"include_usage": True}} if is_stream else {}),
        **_sampling(profile),
    }


def _form(ask: Ask, profile: Profile) -> bytes:
    fields = {"question": ask.question, "max_tokens": str(profile.max_tokens), **_sampling(profile)}
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    head = b'Content-Disposition: form-data; name="image"; filename="maze.png"\r\nContent-Type: image/png\r\n\r\n'
    dashes = f"--{BOUNDARY}".encode()
    return b"".join(dashes + b"\r\n" + part + b"\r\n" for part in (*parts, head + ask.picture)) + dashes + b"--\r\n"
