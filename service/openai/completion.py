"""The answer to who asked for no stream."""

from collections.abc import Sequence

import msgspec
from fastapi import Request, Response

from contracts.errors import ResponseCancelled
from contracts.events import Cancelled, Failed, Incomplete, Terminal
from contracts.jobs import Job
from service.errors import answer_for_failed
from service.openai.following import WAS_CANCELLED
from service.openai.objects import ChatCompletion, ChatMessage, Choice, FinishReason, usage_of
from service.openai.telling import Manner, answer_of, steps_of


def completion(request: Request, jobs: Sequence[Job], ends: Sequence[Terminal], manner: Manner) -> Response:
    """Raises ``ResponseCancelled``."""
    for end in ends:
        if isinstance(end, Failed):
            return answer_for_failed(request, end.error)
        if isinstance(end, Cancelled):
            raise ResponseCancelled(WAS_CANCELLED)
    answer = ChatCompletion(
        id=jobs[0].response_id,
        created=jobs[0].created_at,
        model=jobs[0].model,
        choices=tuple(
            Choice(index=index, message=_message(end, manner), finish_reason=finish_reason(end))
            for index, end in enumerate(ends)
        ),
        usage=usage_of([end.response.usage for end in ends], manner),
    )
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _message(end: Terminal, manner: Manner) -> ChatMessage:
    steps = steps_of(end.response, manner)
    if manner.is_separate:
        return ChatMessage(content=answer_of(end.response), reasoning_content=steps)
    return ChatMessage(content=steps, reasoning_content=None)


def finish_reason(end: Terminal) -> FinishReason:
    return "length" if isinstance(end, Incomplete) else "stop"
