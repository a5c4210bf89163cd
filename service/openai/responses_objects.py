"""OpenAI's response object: a reasoning item, where there is reasoning, and the message with the answer."""

from typing import Any

from contracts.events import Completed, Incomplete
from contracts.jobs import Job
from contracts.responses import ErrorInfo
from service.openai.objects import usage_of
from service.openai.responses_schemas import ResponsesRequest
from service.openai.telling import Manner, answer_of, steps_of


def response_object(job: Job, asked: ResponsesRequest, **fields: Any) -> dict[str, Any]:
    """In progress, unless ``fields`` say otherwise. ``id`` is that of ``/v1/reason/{id}``."""
    return {
        "id": job.response_id,
        "object": "response",
        "created_at": job.created_at,
        "model": job.model,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": job.metadata,
        "output": [],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": asked.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": asked.top_p,
        "usage": None,
        **fields,
    }


def ended_object(job: Job, asked: ResponsesRequest, end: Completed | Incomplete, manner: Manner) -> dict[str, Any]:
    is_whole = isinstance(end, Completed)
    reasoning = steps_of(end.response, manner)
    usage = usage_of([end.response.usage], manner)
    items = [reasoning_item(job, reasoning)] if reasoning else []
    return response_object(
        job,
        asked,
        status="completed" if is_whole else "incomplete",
        incomplete_details=None if is_whole else {"reason": "max_output_tokens"},
        output=[*items, message_item(job, answer_of(end.response), is_whole=is_whole)],
        usage={
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.prompt_tokens_details.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.completion_tokens_details.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        },
    )


def failed_object(job: Job, asked: ResponsesRequest, error: ErrorInfo) -> dict[str, Any]:
    return response_object(job, asked, status="failed", error={"code": error.code, "message": error.message})


def reasoning_item(job: Job, text: str | None) -> dict[str, Any]:
    """``text`` None: it is about to come."""
    return {
        "type": "reasoning",
        "id": f"rs_{job.response_id}",
        "summary": [],
        "content": [] if text is None else [reasoning_part(text)],
        "status": "in_progress" if text is None else "completed",
    }


def message_item(job: Job, text: str | None, *, is_whole: bool = True) -> dict[str, Any]:
    """``text`` None: it is about to come."""
    return {
        "type": "message",
        "id": f"msg_{job.response_id}",
        "role": "assistant",
        "content": [] if text is None else [text_part(text)],
        "status": "in_progress" if text is None else "completed" if is_whole else "incomplete",
    }


def reasoning_part(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
