"""Chunks of a chat completion as its responses go on."""

import asyncio
from collections.abc import Sequence

import msgspec

from contracts.errors import GenerationFailed, NotReady, ResponseCancelled
from contracts.events import Cancelled, Completed, Failed, Incomplete, StepStarted
from contracts.jobs import Job
from contracts.responses import ErrorInfo, Usage, error_info
from service.errors import error_body
from service.following import follow_to_end
from service.gateway import Gateway
from service.openai.completion import WAS_CANCELLED, finish_reason
from service.openai.objects import DONE, ChatChunk, ChatUsage, ChunkChoice, Delta, encode_chunk, usage_of
from service.openai.telling import Manner, StepTeller, ToldOtherwise, answer_of
from service.sse import JobStream, Write

TOLD_OTHERWISE = (
    "The runner was lost on the way, and the one that took over says something else than what was sent already. "
    "Send the request again."
)
IS_STOPPING = "This gateway is stopping. Send the request again."


class _Broken(Exception):
    """A choice will not be whole."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.code)
        self.info = info


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
        except _Broken as broken:
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
        """One choice to its finish reason. Raises ``_Broken``."""
        teller = StepTeller(self._manner)
        has_begun = False
        try:
            async for event in follow_to_end(self._gateway.broker, job):
                if isinstance(event, Completed | Incomplete):
                    teller.end()
                    if not has_begun:
                        await write(self._delta(index, Delta(role="assistant", content="")))
                    answer = answer_of(event.response) if self._manner.is_separate else ""
                    if answer:
                        await write(self._delta(index, Delta(content=answer)))
                    end = ChunkChoice(index=index, delta=Delta(), finish_reason=finish_reason(event))
                    await write(self._chunk((end,)))
                    return event.response.usage
                if isinstance(event, Failed):
                    raise _Broken(event.error)
                if isinstance(event, Cancelled):
                    raise _Broken(error_info(ResponseCancelled(WAS_CANCELLED)))
                if isinstance(event, StepStarted) and not has_begun:
                    has_begun = True
                    await write(self._delta(index, Delta(role="assistant", content="")))
                if text := teller.see(event):
                    is_separate = self._manner.is_separate
                    await write(
                        self._delta(index, Delta(reasoning_content=text) if is_separate else Delta(content=text))
                    )
        except ToldOtherwise:
            raise _Broken(error_info(GenerationFailed(TOLD_OTHERWISE))) from None
        raise _Broken(error_info(NotReady(IS_STOPPING)))

    def _delta(self, index: int, delta: Delta) -> bytes:
        return self._chunk((ChunkChoice(index=index, delta=delta),))

    def _chunk(self, choices: tuple[ChunkChoice, ...], usage: ChatUsage | None = None) -> bytes:
        first = self._jobs[0]
        chunk = ChatChunk(id=first.response_id, created=first.created_at, model=first.model, choices=choices)
        if self._has_usage:
            chunk = msgspec.structs.replace(chunk, usage=usage)
        return encode_chunk(chunk)
