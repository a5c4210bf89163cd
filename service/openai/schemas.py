"""The request of ``POST /v1/chat/completions``, where, as in ``/v1/responses``, unknown fields are passed over."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import InvalidRequest
from service.schemas import (
    MaxTokens,
    Metadata,
    RepetitionPenalty,
    Seed,
    Stops,
    Strict,
    Temperature,
    TopK,
    TopP,
    check_marks,
)
from service.validation import body_error

MAX_MESSAGES = 256
MAX_CHOICES = 16
# What this server does not do: the values that ask for nothing, and what to do instead.
Refused = dict[str, tuple[tuple[Any, ...], str]]
REFUSED: Refused = {
    "logprobs": ((False,), "this server gives no probabilities; leave it out"),
    "top_logprobs": ((0,), "this server gives no probabilities; leave it out"),
    "response_format": (({"type": "text"},), "answers are not held to a format; leave it out and ask for one in words"),
    "tools": (([],), "this server calls no tools; leave it out"),
    "tool_choice": (("none", "auto"), "this server calls no tools; leave it out"),
    "functions": (([],), "this server calls no functions; leave it out"),
    "function_call": (("none", "auto"), "this server calls no functions; leave it out"),
    "logit_bias": (({},), "tokens are not biased here; leave it out"),
    "presence_penalty": ((0,), "only 0 is possible; repetition_penalty is there instead"),
    "frequency_penalty": ((0,), "only 0 is possible; repetition_penalty is there instead"),
}
EXAMPLE: Any = {
    "model": "maze-tiny",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}},
                {"type": "text", "text": "Find a safe path from S to G."},
            ],
        }
    ],
    "stream": True,
}


class Tolerant(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


Asked = TypeVar("Asked", bound=Tolerant)


class Message(Tolerant):
    """``content`` is looked at in ``service.openai.messages``: a union of models says badly what is wrong with it."""

    role: str = Field(description="`system` (or `developer`), `user` or `assistant`.")
    content: Any = Field(
        None,
        description="A text, or a list of parts `{type: text, text}` and `{type: image_url, image_url: {url}}`. A url "
        "is a data: URL, the `img_…` id of a stored image, or an `https://` URL where the operator allows its host.",
    )


class StreamOptions(Tolerant):
    include_usage: bool | None = Field(None, description="A last chunk without choices says the usage of all.")


class ChatLatent(Strict):
    mode: Literal["on", "off"] | None = Field(None, description="`off`: no latent step is ever begun. Default `on`.")
    marker: bool | None = Field(
        None, description="Whether a latent block is told as `[latent: 8]`; by default where reasoning is separate."
    )


class ChatRequest(Tolerant):
    """Sampling fields that are absent or null are decided by the checkpoint's `generation_config.json`.

    Fields that are not listed have no effect, but for those that are refused by name: `logprobs`, `top_logprobs`,
    `response_format`, `tools`, `tool_choice`, `functions`, `function_call`, `logit_bias`, and a `presence_penalty` or
    `frequency_penalty` other than 0.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [EXAMPLE]})

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = Field(None, description="One of `GET /v1/models`; by default the one that is served.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="More than 1 needs a temperature.")
    max_completion_tokens: MaxTokens = None
    max_tokens: MaxTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    repetition_penalty: RepetitionPenalty = None
    seed: Seed = None
    stop: Stops | None = Field(None, description="Generation ends before any of these strings.")
    metadata: Metadata = None
    latent: ChatLatent | None = None
    separate_reasoning: bool | None = Field(
        None, description="`false`: all text is `content`, as it comes, and there is no `reasoning_content`."
    )


def parse_chat(body: bytes) -> ChatRequest:
    """Raises ``MalformedBody``, ``InvalidRequest``."""
    return parse_tolerant(ChatRequest, body, REFUSED)


def parse_tolerant(kind: type[Asked], body: bytes, refused: Refused) -> Asked:
    """Raises ``MalformedBody``, ``InvalidRequest``."""
    check_marks(body)
    try:
        request = kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise body_error(error.errors(include_url=False), kind.model_fields) from None
    for param, (harmless, advice) in refused.items():
        value = (request.model_extra or {}).get(param)
        if value is not None and value not in harmless:
            raise InvalidRequest(f"{param}: {advice}.", param=param)
    return request
