"""The answers of an evaluation on disk, one line each as it comes, so that a stopped run goes on where it was.

The first line says what was asked of what (model, data, engine, seed …); answers of another run are never mixed in. How
answers are matched is not part of it: they are judged when they are read, so that both versions can be had of one run.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

import msgspec
from msgspec import Struct

from contracts.errors import InvalidRequest

Ablation = Literal["on", "off", "zero", "noise", "swap"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
FORMAT = "ilvr-answers/1"


class Answered(Struct, frozen=True, kw_only=True):
    """What a model said to one sample.

    ``text`` has no special tokens; ``whole_text`` is prompt and response with them, or None where the prompt is not
    known. ``num_output_tokens`` counts all that was generated, ``num_latents`` those of them that are latents.
    ``is_cut``: the token limit ended it.
    """

    text: str
    whole_text: str | None
    num_output_tokens: int
    num_latents: int
    latency_s: float
    is_cut: bool = False


class Entry(Struct, frozen=True, kw_only=True):
    """A line: sample ``index`` (of the data file, from 0) under an ablation, and its answer or why there is none."""

    ablation: Ablation
    index: int
    answered: Answered | None = None
    error: str | None = None


class _Head(Struct, frozen=True, kw_only=True):
    format: str
    run: dict[str, str | int | None]


class AnswerLog:
    """Use it as a context: it holds a lock on the file. ``entries``: the last of each ablation and sample."""

    def __init__(self, path: Path, run: Mapping[str, str | int | None]) -> None:
        """Open or begin the log of a run.

        Raises:
            InvalidRequest: the file cannot be written, belongs to another run, is no log, or is being written.
        """
        self.path = path
        self.entries: dict[tuple[Ablation, int], Entry] = {}
        head = _Head(format=FORMAT, run=dict(run))
        try:
            self._file = path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lines = self._complete_lines()
        except BlockingIOError:
            self._file.close()
            raise InvalidRequest(
                f"{path} is being written by another run; wait for it, or give another --out"
            ) from None
        except OSError as error:
            raise InvalidRequest(f"cannot write {path}: {error.strerror}", param="out") from error
        try:
            if lines:
                self._read(lines, head)
            else:
                self._write(head)
        except BaseException:
            self._file.close()
            raise

    def add(self, entry: Entry) -> None:
        """Keep an answer; it is with the operating system when this returns."""
        self.entries[entry.ablation, entry.index] = entry
        self._write(entry)

    def is_answered(self, ablation: Ablation, index: int) -> bool:
        """Whether there is an answer. A sample that could not be asked is asked again when the run goes on."""
        entry = self.entries.get((ablation, index))
        return entry is not None and entry.answered is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def _complete_lines(self) -> list[bytes]:
        """All lines; what a stopped run left of a last one is cut off."""
        self._file.seek(0)
        content = self._file.read()
        complete = content.rpartition(b"\n")[0]
        end = len(complete) + 1 if b"\n" in content else 0
        if end < len(content):
            os.truncate(self._file.fileno(), end)
        return complete.split(b"\n") if end else []

    def _read(self, lines: list[bytes], head: _Head) -> None:
        try:
            found = msgspec.json.decode(lines[0], type=_Head)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"{self.path} holds no answers of an evaluation: {error}") from None
        if found.format != FORMAT:
            raise InvalidRequest(f"{self.path}: format is {found.format!r}, expected {FORMAT!r}")
        for name in sorted({*found.run, *head.run}):
            there, here = found.run.get(name), head.run.get(name)
            if there != here:
                raise InvalidRequest(
                    f"{self.path} holds answers of another run ({name} {there!r} there, {here!r} here); "
                    "give another --out, or remove the file"
                )
        for number, line in enumerate(lines[1:], start=2):
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except msgspec.DecodeError as error:
                raise InvalidRequest(f"{self.path}:{number} is no answer of an evaluation: {error}") from None
            self.entries[entry.ablation, entry.index] = entry

    def _write(self, line: _Head | Entry) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
