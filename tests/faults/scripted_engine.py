"""An engine without a model: it is quick to start, and its right answers are known without running it.

To "Say RRDD, the 7th" it answers with some text, a latent block, and "RRDD" in a box, a few tokens at a time; "in 300
steps" makes that many long texts with a block after each.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

from contracts.errors import EngineDead
from contracts.jobs import Turn
from contracts.manifest import LatentSpec
from model_runner.attempt import Answering
from model_runner.engine.base import EngineRequest, EngineStats, PromptInfo, TokenDelta
from model_runner.generation import GenerationDefaults
from model_runner.vocabulary import Vocabulary

QUESTION = re.compile(r"Say (\w+), the (\d+)th(?:, in (\d+) steps)?")
# A token is a byte; what is no byte is no text.
PAD, START, END, EOS = 256, 257, 258, 259
SPEC = LatentSpec(pad_id=PAD, start_id=START, end_id=END, size=8, rule="learned")
CHUNKS_OF_TEXT = 4
LONG_TEXT = b"Looking at it for long. " * 200
NUM_IMAGE_TOKENS = 9


class ScriptedEngine:
    """An answer takes ``seconds``. Every request that is begun becomes a line of ``runs``: the number it asks for, and
    the id that the runner gave it. ``die`` is what the end of an engine process looks like from outside."""

    name = "scripted"
    latent_ablation = "none"

    def __init__(self, seconds: float, runs: Path) -> None:
        self._seconds = seconds
        self._runs = runs.open("a", buffering=1)
        self._num_open = 0
        self._is_dead = asyncio.Event()

    async def prepare(self) -> None: ...

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta, None]:
        pieces = list(_pieces(bytes(request.prompt_ids).decode()))
        asked = QUESTION.search(bytes(request.prompt_ids).decode())
        assert asked is not None
        self._runs.write(f"{asked[2]} {request.request_id}\n")
        prompt = PromptInfo(
            num_tokens=len(request.prompt_ids) + NUM_IMAGE_TOKENS * len(request.images),
            num_image_tokens=NUM_IMAGE_TOKENS * len(request.images),
            num_cached_tokens=0,
            queue_ms=0.0,
        )
        self._num_open += 1
        try:
            for index, ids in enumerate(pieces):
                await self._pause(self._seconds / len(pieces))
                is_last = index == len(pieces) - 1
                yield TokenDelta(ids=ids, prompt=None if index else prompt, stop_reason="stop" if is_last else None)
        finally:
            self._num_open -= 1

    async def _pause(self, seconds: float) -> None:
        """Raises ``EngineDead``, at once if it dies meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_dead.wait()
        except TimeoutError:
            return
        raise EngineDead("the engine is gone")

    def die(self) -> None:
        self._is_dead.set()

    async def is_alive(self) -> bool:
        return not self._is_dead.is_set()

    async def stats(self) -> EngineStats:
        if self._is_dead.is_set():
            raise EngineDead("the engine is gone")
        return EngineStats(num_running=self._num_open)

    async def aclose(self) -> None:
        self._runs.close()


def _pieces(question: str) -> Iterator[tuple[int, ...]]:
    asked = QUESTION.search(question)
    assert asked is not None, question
    num_steps, text = (1, b"Looking at it. ") if asked[3] is None else (int(asked[3]), LONG_TEXT)
    for _ in range(num_steps):
        size = -(-len(text) // CHUNKS_OF_TEXT)
        for begin in range(0, len(text), size):
            yield tuple(text[begin : begin + size])
        yield (START, PAD, PAD, PAD)
        yield (PAD, PAD, PAD, PAD, PAD, END)
    yield tuple(f"So it is \\boxed{{{asked[1]}}}".encode())
    yield (EOS,)


class _Prompts:
    def build(self, question: str, *, num_images: int, history: Sequence[Turn] = ()) -> tuple[int, ...]:
        return tuple(question.encode())


class _Sizes:
    def num_tokens(self, size: tuple[int, int]) -> int:
        return NUM_IMAGE_TOKENS


def answering(engine: ScriptedEngine) -> Answering:
    """What a runner needs beside the engine, for tokens that are bytes."""
    return Answering(
        model_name="scripted",
        engine=engine,
        spec=SPEC,
        defaults=GenerationDefaults(end_ids=(EOS,)),
        prompts=_Prompts(),
        image_sizes=_Sizes(),
        vocabulary=Vocabulary({byte: bytes([byte]) for byte in range(256)}),
        context_tokens=1 << 24,
    )
