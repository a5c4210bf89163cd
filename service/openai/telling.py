"""How a response is told to OpenAI's clients: which of its text is reasoning and which is content.

``reasoning_content`` is all steps in their order: text verbatim, a latent block as its marker. ``content`` is the
response's ``answer``; of a text that names none, the text step at its end. So nothing of ``content`` is known before
the end, and all of ``reasoning_content`` is told as it comes. Where reasoning is not separate, ``content`` is what
``reasoning_content`` would be.
"""

from dataclasses import dataclass

from contracts.events import Event, Restarted, StepCompleted, StepDelta
from contracts.responses import Response, TextStep
from service.openai.schemas import ChatRequest


@dataclass(frozen=True, slots=True)
class Manner:
    is_separate: bool = True
    has_markers: bool = True


def manner_of(request: ChatRequest) -> Manner:
    is_separate = request.separate_reasoning is not False
    marker = request.latent.marker if request.latent else None
    return Manner(is_separate, has_markers=is_separate if marker is None else marker)


def marker_of(size: int) -> str:
    return f"[latent: {size}]"


def steps_of(response: Response, manner: Manner) -> str:
    return "".join(
        step.text if isinstance(step, TextStep) else marker_of(step.size) if manner.has_markers else ""
        for step in response.steps
    )


def answer_of(response: Response) -> str:
    if response.answer is not None:
        return response.answer
    last = response.steps[-1] if response.steps else None
    return last.text if isinstance(last, TextStep) else ""


class ToldOtherwise(Exception):
    """A response began again and says something else than was sent, which cannot be taken back."""


class StepTeller:
    """The steps of one response as its events bring them, each character once.

    After a restart what comes again is compared with what was told, and told no second time.
    """

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._told: list[str] = []
        self._to_repeat = ""

    def see(self, event: Event) -> str:
        """The new text. Raises ``ToldOtherwise``."""
        if isinstance(event, Restarted):
            self._to_repeat = "".join(self._told)
            return ""
        text = self._text_of(event)
        if self._to_repeat and text:
            num_known = min(len(text), len(self._to_repeat))
            if text[:num_known] != self._to_repeat[:num_known]:
                raise ToldOtherwise
            self._to_repeat = self._to_repeat[num_known:]
            text = text[num_known:]
        if text:
            self._told.append(text)
        return text

    def end(self) -> None:
        """Raises ``ToldOtherwise``: it ended sooner than before."""
        if self._to_repeat:
            raise ToldOtherwise

    def _text_of(self, event: Event) -> str:
        if isinstance(event, StepDelta) and isinstance(event.text, str):
            return event.text
        if isinstance(event, StepCompleted) and isinstance(event.size, int) and self._manner.has_markers:
            return marker_of(event.size)
        return ""
