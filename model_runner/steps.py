"""Token ids into reasoning steps: a state machine, and a pure function of the ids.

Text between latent blocks is one step however many stray pads or ENDs the model emitted in it; no special token ever
appears in a text, and half of a multi-byte character is never given out.
"""

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contracts.manifest import LatentSpec
from contracts.responses import LatentExit, StepType
from model_runner.stop_strings import StopScanner
from model_runner.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Started:
    index: int
    step_type: StepType


@dataclass(frozen=True, slots=True)
class TextAdded:
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class PadsAdded:
    """``size``: pads of the block so far."""

    index: int
    size: int


@dataclass(frozen=True, slots=True)
class TextEnded:
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class BlockEnded:
    index: int
    size: int
    exit: LatentExit


Update = Started | TextAdded | PadsAdded | TextEnded | BlockEnded


class StepMachine:
    """Feed it ids as they come, then :meth:`finish` once.

    ``is_stopped`` becomes true when a stop string appeared: the text ends before it, and later ids are ignored.
    """

    def __init__(self, spec: LatentSpec, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        self._spec = spec
        self._vocabulary = vocabulary
        self._scanner = StopScanner(stop)
        self._index = 0
        self._block_size: int | None = None  # pads of the open block; None in text
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text: list[str] = []  # given out of the open text step
        self.is_stopped = False
        self.num_latent_steps = 0
        self.num_latent_blocks = 0

    @property
    def is_in_block(self) -> bool:
        return self._block_size is not None

    def feed(self, ids: Iterable[int]) -> list[Update]:
        """Updates that these ids bring, neighbouring deltas of a step joined."""
        updates: list[Update] = []
        text = b""
        for token_id in ids:
            if self.is_stopped:
                break
            is_marker = token_id in (self._spec.start_id, self._spec.end_id, self._spec.pad_id)
            if self._block_size is None and token_id != self._spec.start_id:
                if not is_marker:  # a stray pad or END means nothing outside a block
                    text += self._vocabulary.bytes_of(token_id)
                continue
            updates += self._add_text(self._decoder.decode(text))
            text = b""
            if not self.is_stopped:
                updates += self._feed_block(token_id)
        updates += self._add_text(self._decoder.decode(text))
        return _joined(updates)

    def finish(self) -> list[Update]:
        """Close the open step: a block short of K is cut, a text is complete. Half a character becomes U+FFFD."""
        if self._block_size is not None:
            return [self._end_block("full" if self._block_size >= self._spec.size else "cut")]
        return self._end_text()

    def _feed_block(self, token_id: int) -> list[Update]:
        """A token of an open block, or the START that opens one."""
        if self._block_size is None:
            ended_text = self._end_text()
            return ended_text if self.is_stopped else [*ended_text, *self._open_block()]
        if token_id == self._spec.pad_id and self._block_size < self._spec.size:
            self._block_size += 1
            self.num_latent_steps += 1
            return [PadsAdded(self._index, self._block_size)]
        if token_id == self._spec.start_id:
            return [self._end_block("restart"), *self._open_block()]
        ended = self._end_block("full" if self._block_size >= self._spec.size else "early")
        rest = [] if token_id == self._spec.end_id else self.feed([token_id])
        return [ended, *rest]

    def _open_block(self) -> list[Update]:
        self._block_size = 0
        self.num_latent_blocks += 1
        return [Started(self._index, "latent")]

    def _end_block(self, exit: LatentExit) -> Update:
        assert self._block_size is not None
        ended = BlockEnded(self._index, self._block_size, exit)
        self._block_size = None
        self._index += 1
        return ended

    def _add_text(self, text: str) -> list[Update]:
        if not text or self.is_stopped:
            return []
        shown = self._scanner.feed(text)
        self.is_stopped = self._scanner.is_stopped
        return self._show(shown)

    def _show(self, text: str) -> list[Update]:
        if not text:
            return []
        started: list[Update] = [] if self._text else [Started(self._index, "text")]
        self._text.append(text)
        return [*started, TextAdded(self._index, text)]

    def _end_text(self) -> list[Update]:
        updates = self._add_text(self._decoder.decode(b"", final=True))
        updates += self._show(self._scanner.flush())
        self._decoder.reset()
        if self._text:
            updates.append(TextEnded(self._index, "".join(self._text)))
            self._text = []
            self._index += 1
        return updates


def _joined(updates: Iterable[Update]) -> list[Update]:
    """Deltas of one step that follow each other become one."""
    joined: list[Update] = []
    for update in updates:
        last = joined[-1] if joined else None
        if isinstance(update, TextAdded) and isinstance(last, TextAdded):
            joined[-1] = TextAdded(update.index, last.text + update.text)
        elif isinstance(update, PadsAdded) and isinstance(last, PadsAdded):
            joined[-1] = update
        else:
            joined.append(update)
    return joined
