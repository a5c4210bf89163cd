"""Chunks of a chat completion as its responses go on."""

import asyncio
from collections.abc import Sequence

import msgspec

from contracts.jobs import Job
from contracts.responses import Usage
from service.errors import error_body
from service.gateway import Gateway
from service.openai.completion import finish_reason
from service.openai.following import Begun, Broken, follow_text
from service.openai.objects import DONE, ChatChunk, ChatUsage, ChunkChoice, Delta, encode_chunk, usage_of
from service.openai.telling import Manner, answer_of
from service.sse import JobStream, Write


class ChatStream(JobStream):
    """Ends with ``[DONE]``, or with an ``error`` object where a choice is not whole.

    Nobody comes back to such a stream, so jobs that its client leaves are cancelled at once.
    """

    def __init__(self, gateway: Gateway, jobs: Sequence[Job], manner: Manner, *, has_usage: bool) -> None:
        super().__init__(gateway, jobs, grace_s=0.0)
        self._manner = manner
        self._has_usage = has_usage

    async def tell(self, write: Write) -> bool:
        try:
            usages = await self._tell_choices(write)
        except Broken as broken:
            await write(b"data: %s\n\n" % error_body(broken.info, self._jobs[0].request_id))
            return False
        if self._has_usage:
            await write(self._chunk((), usage_of(usages, self._manner)))
        await write(DONE)
        return True

    async def _tell_choices(self, write: Write) -> Sequence[Usage]:
        if len(self._jobs) == 1:
            return [await self._tell_choice(0, self._jobs[0], write)]
        choices = [asyncio.create_task(self._tell_choice(index, job, write)) for index, job in enumerate(self._jobs)]
        try:
            return await asyncio.gather(*choices)
        finally:
            for choice in choices:
                choice.cancel()
            await asyncio.wait(choices)

    async def _tell_choice(self, index: int, job: Job, write: Write) -> Usage:
        """One choice to its finish reason. Raises ``Broken``."""
        is_separate = self._manner.is_separate
        async for told in follow_text(self._gateway, job, self._manner):
            if isinstance(told, Begun):
                await write(self._delta(index, Delta(role="assistant", content="")))
            elif isinstance(told, str):
                await write(self._delta(index, Delta(reasoning_content=told) if is_separate else Delta(content=told)))
            else:
                if is_separate and (answer := answer_of(told.response)):
                    await write(self._delta(index, Delta(content=answer)))
                end = ChunkChoice(index=index, delta=Delta(), finish_reason=finish_reason(told))
                await write(self._chunk((end,)))
                usage = told.response.usage
        return usage

    def _delta(self, index: int, delta: Delta) -> bytes:
        return self._chunk((ChunkChoice(index=index, delta=delta),))

    def _chunk(self, choices: tuple[ChunkChoice, ...], usage: ChatUsage | None = None) -> bytes:
        first = self._jobs[0]
        chunk = ChatChunk(id=first.response_id, created=first.created_at, model=first.model, choices=choices)
        if self._has_usage:
            chunk = msgspec.structs.replace(chunk, usage=usage)
        return encode_chunk(chunk)
