"""What OpenAI's clients read. A field that a chunk leaves out is ``UNSET``."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from contracts.responses import Usage
from service.openai.telling import Manner

FinishReason = Literal["stop", "length"]
# ``data: [DONE]`` says that a stream is whole.
DONE = b"data: [DONE]\n\n"


class PromptDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int


class CompletionDetails(Struct, frozen=True, kw_only=True):
    """All generated tokens but those of ``content``; latent steps are tokens."""

    reasoning_tokens: int


class ChatUsage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ChatMessage(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | None
    refusal: None = None


class Choice(Struct, frozen=True, kw_only=True):
    index: int
    message: ChatMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """``id`` is that of the first choice's response: ``GET /v1/reason/{id}`` shows it with its steps."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: ChatUsage


class Delta(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """With ``include_usage``, ``usage`` is null in all but the last chunk, which has no choices."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: ChatUsage | UnsetType | None = UNSET


_encoder = msgspec.json.Encoder()


def encode_chunk(chunk: ChatChunk) -> bytes:
    return b"data: %s\n\n" % _encoder.encode(chunk)


def usage_of(usages: Sequence[Usage], manner: Manner) -> ChatUsage:
    """Of all choices; their one prompt counts once."""
    prompt, cached = usages[0].input_tokens, usages[0].cached_tokens
    generated = sum(usage.output_text_tokens + usage.latent_steps for usage in usages)
    content = sum(usage.answer_tokens if manner.is_separate else usage.output_text_tokens for usage in usages)
    return ChatUsage(
        prompt_tokens=prompt,
        completion_tokens=generated,
        total_tokens=prompt + generated,
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
        completion_tokens_details=CompletionDetails(reasoning_tokens=generated - content),
    )
