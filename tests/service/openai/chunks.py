"""A streamed completion, put together again."""

from collections.abc import Sequence
from typing import Any

from openai.types.chat import ChatCompletionChunk

QUESTION: list[Any] = [{"role": "user", "content": "Find a safe path."}]


def text_of(chunks: Sequence[ChatCompletionChunk], field: str, index: int = 0) -> str:
    """All of ``content`` or ``reasoning_content`` of one choice."""
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(getattr(delta, field, None) or "" for delta in deltas)


def ends_of(chunks: Sequence[ChatCompletionChunk]) -> dict[int, str]:
    """The finish reason of each choice; two for one are refused."""
    found = [(c.index, c.finish_reason) for chunk in chunks for c in chunk.choices if c.finish_reason is not None]
    assert len(dict(found)) == len(found)
    return dict(found)
