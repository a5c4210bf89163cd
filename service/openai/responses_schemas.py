"""The request of ``POST /v1/responses``. As with chat, unknown fields are passed over."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field

from contracts.errors import InvalidRequest
from service.openai.schemas import MAX_MESSAGES, ChatLatent, Message, Refused, Tolerant, parse_tolerant
from service.schemas import MaxTokens, Metadata, RepetitionPenalty, Seed, Stops, Temperature, TopK, TopP

NO_TOOLS = "this server calls no tools; leave it out"
NO_FORMAT = "answers are not held to a format; leave it out and ask for one in words"
NOT_KEPT = "responses are not continued by id here; send the messages so far as input"
REFUSED: Refused = {
    "previous_response_id": ((), NOT_KEPT),
    "conversation": ((), NOT_KEPT),
    "prompt": ((), "no prompts are kept here; send the text as input"),
    "background": ((False,), "POST /v1/reason has it; leave it out here"),
    "tools": (([],), NO_TOOLS),
    "tool_choice": (("none", "auto"), NO_TOOLS),
    "top_logprobs": ((0,), "this server gives no probabilities; leave it out"),
}
# Parts of messages: what they are called here and in a chat.
PARTS = {"input_text": "text", "output_text": "text", "input_image": "image_url"}


class ResponsesRequest(Tolerant):
    """Sampling fields that are absent or null are decided by the checkpoint's `generation_config.json`.

    Fields that are not listed have no effect, but for those that are refused by name: `previous_response_id`,
    `conversation`, `prompt`, `background`, `tools`, `tool_choice`, `top_logprobs`, and a `text` that asks for a format.
    """

    model_config = ConfigDict(extra="allow")

    input: Any = Field(description="A text, or a list of messages with `input_text` and `input_image` parts.")
    instructions: str | None = Field(None, description="A system message before all others.")
    model: str | None = Field(None, description="One of `GET /v1/models`; by default the one that is served.")
    stream: bool | None = None
    max_output_tokens: MaxTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    repetition_penalty: RepetitionPenalty = None
    seed: Seed = None
    stop: Stops | None = Field(None, description="Generation ends before any of these strings.")
    metadata: Metadata = None
    latent: ChatLatent | None = None
    text: Any = Field(None, description="A `format` in it is refused but for `text`; all else has no effect.")


def parse_responses(body: bytes) -> ResponsesRequest:
    """Raises ``MalformedBody``, ``InvalidRequest``."""
    request = parse_tolerant(ResponsesRequest, body, REFUSED)
    if isinstance(request.text, dict) and request.text.get("format") not in (None, {"type": "text"}):
        raise InvalidRequest(f"text.format: {NO_FORMAT}.", param="text.format")
    return request


def messages_of(request: ResponsesRequest) -> Sequence[tuple[str, Message]]:
    """As a chat has them, each with its field. Reasoning that is sent back is left out. Raises ``InvalidRequest``."""
    said = [] if request.instructions is None else [("instructions", _message("system", request.instructions))]
    given = [{"role": "user", "content": request.input}] if isinstance(request.input, str) else request.input
    if not isinstance(given, list) or not given:
        raise InvalidRequest("input: a text or a list of messages is expected.", param="input")
    if len(given) > MAX_MESSAGES:
        raise InvalidRequest(f"input: {len(given)} items, at most {MAX_MESSAGES} are allowed.", param="input")
    for number, item in enumerate(given):
        param = "input" if isinstance(request.input, str) else f"input.{number}"
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "reasoning":
            continue
        if kind != "message":
            raise InvalidRequest(f"{param}.type: messages are known here.", param=f"{param}.type")
        said.append((param, _message(str(item.get("role")), _content(item.get("content")))))
    if not said:
        raise InvalidRequest("input: there is no message in it.", param="input")
    return said


def _message(role: str, content: Any) -> Message:
    return Message(role=role, content=content)


def _content(content: Any) -> Any:
    return [_part(part) for part in content] if isinstance(content, list) else content


def _part(part: Any) -> Any:
    """In a chat's form; what has none is left as it is, and refused where parts are read."""
    if not isinstance(part, dict) or part.get("type") not in PARTS:
        return part
    kind = PARTS[part["type"]]
    if kind == "text":
        return {"type": "text", "text": part.get("text")}
    return {"type": "image_url", "image_url": part.get("image_url") or part.get("file_id")}
