"""How the events of a response look in a terminal, in a pipe, and as JSON."""

import json
from collections.abc import Mapping
from typing import TextIO

import msgspec

from contracts.events import Created, Event, Queued, Restarted, StepCompleted, StepDelta, StepStarted, Terminal
from contracts.responses import Response

MAX_BAR_CELLS = 32
BOLD, DIM, RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class View:
    """``ended`` is the response object once it is there."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.ended: Response | None = None

    def show(self, event: Event) -> None:
        if isinstance(event, Terminal):
            self.ended = event.response
            self.finish(event.response)

    def finish(self, response: Response) -> None: ...

    def interrupt(self) -> None: ...


class JsonView(View):
    def finish(self, response: Response) -> None:
        print(json.dumps(msgspec.to_builtins(response), ensure_ascii=False), file=self._out, flush=True)


class PlainView(View):
    """Steps and answer only, the same for the same response: times and counts go to ``notes``.

    Text is verbatim; a latent step is a line of its own; the last line is the answer.
    """

    def __init__(self, out: TextIO, notes: TextIO) -> None:
        super().__init__(out)
        self._notes = notes
        self._is_line_begun = False

    def show(self, event: Event) -> None:
        match event:
            case StepDelta(text=str(text)):
                self._write(self._safe(text))
            case StepCompleted(size=int(size), exit=str(how)):
                self.latent_ended(size, how, event.duration_ms if isinstance(event.duration_ms, float) else 0.0)
            case Restarted():
                self._line(f"[restarted, attempt {event.attempt}]")
            case Queued():
                self._note(f"waiting, position {event.position}")
            case _:
                pass
        super().show(event)

    def latent_ended(self, size: int, how: str, duration_ms: float) -> None:
        self._line(f"[latent {size} {how}]")

    def finish(self, response: Response) -> None:
        self._end_line()
        self._note(summary(response))
        if response.status in ("completed", "incomplete"):
            self.answer(" ".join(response.answer.split("\n")) if response.answer is not None else "(none)")

    def answer(self, text: str) -> None:
        self._line(f"answer: {text}")

    def interrupt(self) -> None:
        self._end_line()
        self._note("cancelled")

    def _safe(self, text: str) -> str:
        return text

    def _note(self, text: str) -> None:
        print(text, file=self._notes, flush=True)

    def _line(self, text: str) -> None:
        self._end_line()
        self._write(text + "\n")

    def _end_line(self) -> None:
        if self._is_line_begun:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        if text:
            self._is_line_begun = not text.endswith("\n")


class TerminalView(PlainView):
    """The same with a bar that fills while the model thinks, and the answer standing out."""

    def __init__(self, out: TextIO, latent_sizes: Mapping[str, int]) -> None:
        super().__init__(out, notes=out)
        self._latent_sizes = latent_sizes
        self._latent_size = 0

    def show(self, event: Event) -> None:
        match event:
            case Created():
                self._latent_size = self._latent_sizes.get(event.model, 0)
            case StepStarted(step_type="latent"):
                self._end_line()
                self._write(self._bar(0))
            case StepDelta(size=int(size)):
                self._write("\r" + self._bar(size))
            case _:
                pass
        super().show(event)

    def latent_ended(self, size: int, how: str, duration_ms: float) -> None:
        self._write(f"\r{self._bar(size)} {DIM}{how}, {duration_ms:.1f} ms{RESET}\n")

    def answer(self, text: str) -> None:
        self._line(f"{BOLD}answer: {self._safe(text)}{RESET}")

    def _bar(self, size: int) -> str:
        cells = min(max(self._latent_size, size), MAX_BAR_CELLS)
        filled = cells * size // max(self._latent_size, size, 1)
        bar = "█" * filled + "░" * (cells - filled)
        return f"{DIM}latent{RESET} {bar} {size}" + (f"/{self._latent_size}" if self._latent_size else "")

    def _note(self, text: str) -> None:
        self._line(f"{DIM}{text}{RESET}")

    def _safe(self, text: str) -> str:
        return text.replace("\x1b", "␛").replace("\r", "␍")  # a model does not steer the terminal


def view_for(out: TextIO, notes: TextIO, latent_sizes: Mapping[str, int]) -> View:
    """A terminal gets the bar, if it can print one; anything else gets plain lines."""
    is_able = (getattr(out, "encoding", None) or "").lower().startswith("utf")
    return TerminalView(out, latent_sizes) if out.isatty() and is_able else PlainView(out, notes)


def summary(response: Response) -> str:
    """Counts and times in one line."""
    usage, timings = response.usage, response.timings
    parts = [
        response.status if response.status != "incomplete" else "stopped at the token limit",
        f"{usage.input_tokens} tokens in ({usage.image_tokens} of images)",
        f"{usage.output_text_tokens} of text and {usage.latent_steps} latent steps out",
    ]
    named = (("first step", timings.time_to_first_step_ms), ("total", timings.total_ms))
    times = [f"{name} {value:.0f} ms" for name, value in named if value is not None]
    return " · ".join([*parts, *times])
