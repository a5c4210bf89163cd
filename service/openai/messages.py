"""OpenAI's messages into a question, its pictures and what was said before."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.errors import InvalidRequest
from contracts.jobs import Role, Turn
from service.openai.schemas import Message
from service.schemas import Base64Image, ImageInput, RefImage, UrlImage

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
STORED = re.compile(r"img_[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Conversation:
    """``images`` are those of all turns, the question's last; ``image_params`` names the field of each."""

    question: str
    history: tuple[Turn, ...]
    images: tuple[ImageInput, ...]
    image_params: tuple[str, ...]


def read_messages(messages: Sequence[tuple[str, Message]], max_chars: int) -> Conversation:
    """Each with the field that it stands in. Raises ``InvalidRequest``."""
    turns: list[Turn] = []
    images: list[ImageInput] = []
    params: list[str] = []
    for param, message in messages:
        if message.role not in ROLES:
            raise InvalidRequest(
                f"{param}.role: {message.role!r} is not known here; system, user and assistant are.",
                param=f"{param}.role",
            )
        text, num_images_before = "", len(images)
        for part_param, part in _parts(message.content, f"{param}.content"):
            if isinstance(part, str):
                text += part
            elif message.role != "user":
                raise InvalidRequest(f"{part_param}: only a user's message has pictures.", param=part_param)
            else:
                images.append(part)
                params.append(part_param)
        turns.append(Turn(role=ROLES[message.role], text=text, num_images=len(images) - num_images_before))
    last, message = messages[-1]
    if message.role != "user":
        raise InvalidRequest(f"{last}.role: the last message must be a user's.", param=f"{last}.role")
    *history, asked = turns
    if not asked.text:
        raise InvalidRequest(f"{last}.content: there is no text in it.", param=f"{last}.content")
    num_chars = sum(len(turn.text) for turn in turns)
    if num_chars > max_chars:
        field = last.partition(".")[0]
        raise InvalidRequest(f"{field}: {num_chars} characters, at most {max_chars} are allowed.", param=field)
    return Conversation(asked.text, tuple(history), tuple(images), tuple(params))


def _parts(content: Any, param: str) -> Iterator[tuple[str, str | ImageInput]]:
    """Texts and pictures in their order, each with the field that it stands in."""
    if isinstance(content, str):
        yield param, content
    elif not isinstance(content, list) or not content:
        raise InvalidRequest(f"{param}: a text or a list of parts is expected.", param=param)
    else:
        for number, part in enumerate(content):
            yield _part(part, f"{param}.{number}")


def _part(part: Any, param: str) -> tuple[str, str | ImageInput]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "image_url"):
        raise InvalidRequest(f"{param}.type: 'text' and 'image_url' are known here.", param=f"{param}.type")
    value = part.get(kind)
    if kind == "text":
        if not isinstance(value, str):
            raise InvalidRequest(f"{param}.text: a text is expected.", param=f"{param}.text")
        return f"{param}.text", value
    param += ".image_url.url" if isinstance(value, Mapping) else ".image_url"
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str):
        raise InvalidRequest(f"{param}: a URL is expected.", param=param)
    return param, _image(url, param)


def _image(url: str, param: str) -> ImageInput:
    if begin := DATA_URL.match(url[:256]):
        return Base64Image(type="base64", data=url[begin.end() :])
    if STORED.fullmatch(url):
        return RefImage(type="ref", id=url)
    if url.lower().startswith(("https://", "http://")):
        return UrlImage(type="url", url=url)
    raise InvalidRequest(
        f"{param}: a data URL (data:image/png;base64,…), the id of a stored image (img_…) or an https URL is expected.",
        param=param,
    )
