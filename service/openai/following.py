"""A job as OpenAI's clients follow it: new text, and an end that is whole or none."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from contracts.errors import GenerationFailed, NotReady, ResponseCancelled
from contracts.events import Cancelled, Completed, Failed, Incomplete, StepStarted
from contracts.jobs import Job
from contracts.responses import ErrorInfo, error_info
from service.following import follow_to_end
from service.gateway import Gateway
from service.openai.telling import Manner, StepTeller, ToldOtherwise

TOLD_OTHERWISE = (
    "The runner was lost on the way, and the one that took over says something else than what was sent already. "
    "Send the request again."
)
IS_STOPPING = "This gateway is stopping. Send the request again."
WAS_CANCELLED = "The response was cancelled."


@dataclass(frozen=True, slots=True)
class Begun:
    """The first step has begun. Comes once, before everything else."""


class Broken(Exception):
    """It will not be whole."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.code)
        self.info = info


async def follow_text(
    gateway: Gateway, job: Job, manner: Manner
) -> AsyncIterator[Begun | str | Completed | Incomplete]:
    """``Begun``, text as it is told, and the terminal event. Raises ``Broken``."""
    teller = StepTeller(manner)
    has_begun = False
    try:
        async for event in follow_to_end(gateway.broker, job, on_text_gap=gateway.metrics.text_gap.observe):
            if isinstance(event, Failed):
                raise Broken(event.error)
            if isinstance(event, Cancelled):
                raise Broken(error_info(ResponseCancelled(WAS_CANCELLED)))
            if isinstance(event, StepStarted | Completed | Incomplete) and not has_begun:
                has_begun = True
                yield Begun()
            if isinstance(event, Completed | Incomplete):
                teller.end()
                yield event
                return
            if text := teller.see(event):
                yield text
    except ToldOtherwise:
        raise Broken(error_info(GenerationFailed(TOLD_OTHERWISE))) from None
    raise Broken(error_info(NotReady(IS_STOPPING)))
