"""The typed events of ``POST /v1/responses``, each with its number."""

from typing import Any

import msgspec

from contracts.events import Completed, Incomplete
from contracts.jobs import Job
from service.gateway import Gateway
from service.openai.following import Begun, Broken, follow_text
from service.openai.responses_objects import (
    ended_object,
    failed_object,
    message_item,
    reasoning_item,
    reasoning_part,
    response_object,
    text_part,
)
from service.openai.responses_schemas import ResponsesRequest
from service.openai.telling import Manner, answer_of, steps_of
from service.sse import JobStream, Write


class ResponsesStream(JobStream):
    """Ends with ``response.completed``, ``response.incomplete`` or ``response.failed``."""

    def __init__(self, gateway: Gateway, job: Job, asked: ResponsesRequest, manner: Manner) -> None:
        super().__init__(gateway, [job], grace_s=0.0)
        self._job = job
        self._asked = asked
        self._manner = manner
        self._num_sent = 0
        self._item_ids: list[str] = []

    async def tell(self, write: Write) -> bool:
        for name in ("response.created", "response.in_progress"):
            await write(self._event(name, response=response_object(self._job, self._asked)))
        has_reasoning = False
        try:
            async for told in follow_text(self._gateway, self._job, self._manner):
                if isinstance(told, Begun):
                    continue
                if isinstance(told, str):
                    if not has_reasoning:
                        has_reasoning = True
                        await write(self._begun(0, reasoning_item(self._job, None), reasoning_part("")))
                    await write(self._part(0, "response.reasoning_text.delta", delta=told))
                else:
                    await write(self._ended(told, has_reasoning=has_reasoning))
        except Broken as broken:
            response = failed_object(self._job, self._asked, broken.info)
            await write(self._event("response.failed", response=response))
            return False
        return True

    def _ended(self, end: Completed | Incomplete, *, has_reasoning: bool) -> bytes:
        """The end of the reasoning, the whole message, and the whole response."""
        response = ended_object(self._job, self._asked, end, self._manner)
        text, at = answer_of(end.response), int(has_reasoning)
        parts = []
        if has_reasoning:
            reasoning = steps_of(end.response, self._manner)
            parts.append(self._part(0, "response.reasoning_text.done", text=reasoning))
            parts.append(self._done(0, response["output"][0], reasoning_part(reasoning)))
        parts.append(self._begun(at, message_item(self._job, None), text_part("")))
        if text:
            parts.append(self._part(at, "response.output_text.delta", delta=text, logprobs=[]))
        parts.append(self._part(at, "response.output_text.done", text=text, logprobs=[]))
        parts.append(self._done(at, response["output"][-1], text_part(text)))
        parts.append(self._event(f"response.{response['status']}", response=response))
        return b"".join(parts)

    def _begun(self, at: int, item: dict[str, Any], part: dict[str, Any]) -> bytes:
        self._item_ids.append(item["id"])
        added = self._event("response.output_item.added", output_index=at, item=item)
        return added + self._part(at, "response.content_part.added", part=part)

    def _done(self, at: int, item: dict[str, Any], part: dict[str, Any]) -> bytes:
        done = self._part(at, "response.content_part.done", part=part)
        return done + self._event("response.output_item.done", output_index=at, item=item)

    def _part(self, at: int, name: str, **fields: Any) -> bytes:
        """Of the one content part of an item that has begun."""
        return self._event(name, item_id=self._item_ids[at], output_index=at, content_index=0, **fields)

    def _event(self, name: str, **fields: Any) -> bytes:
        data = {"type": name, "sequence_number": self._num_sent, **fields}
        self._num_sent += 1
        return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
