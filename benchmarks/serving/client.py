"""Streamed chat completions from many at once: in a closed loop, or when they are due.

What comes is only kept and dated; it is read when the turn is over, for the client has its share of the same cores.
"""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.serving.contenders import Contender

TIMEOUT_S = 600.0
REFUSALS = (429, 503)


@dataclass
class Answer:
    """due_s: when the request was due, by the clock that ``parts`` are dated with. ``parts``: what came, and when."""

    due_s: float
    parts: list[tuple[float, bytes]] = field(default_factory=list)
    first_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    text: str = ""
    is_refused: bool = False

    def read(self) -> None:
        """Fills the other fields. Raises ``SystemExit``: the answer is not whole, so nothing was measured."""
        came: dict[int, float] = {}  # by the end of each part, when it came
        stream = b""
        for at_s, part in self.parts:
            stream += part
            came[len(stream)] = at_s
        chunks = []
        end = 0
        for block in stream.split(b"\n\n"):
            end += len(block) + 2
            data = block.removeprefix(b"data: ")
            if not block.startswith(b"data: ") or data == b"[DONE]":
                continue
            chunk: dict[str, Any] = json.loads(data)
            if "choices" not in chunk:
                raise SystemExit(f"not measured: {data.decode()[:300]}")
            said = "".join(_said(choice["delta"]) for choice in chunk["choices"])
            if said and not chunks:
                self.first_s = next(at_s for length, at_s in came.items() if length >= end) - self.due_s
            chunks += [said] if said else []
            if usage := chunk.get("usage"):
                self.prompt_tokens, self.completion_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        if not stream.rstrip().endswith(b"data: [DONE]") or not self.completion_tokens:
            raise SystemExit(f"not measured: an answer ended early: {stream[-300:].decode()}")
        self.text = "".join(chunks)
        self.parts.clear()


def _said(delta: dict[str, Any]) -> str:
    """vLLM says the part of a thinking model under another name."""
    return (delta.get("reasoning_content") or "") + (delta.get("content") or "")


@dataclass(frozen=True)
class Turn:
    """seconds: until all answers were whole. num_refused: requests that have none."""

    answers: list[Answer]
    seconds: float
    num_refused: int = 0

    @property
    def tokens_a_second(self) -> float:
        return sum(answer.completion_tokens for answer in self.answers) / self.seconds

    def first_ms(self, percent: int) -> float:
        """Time to the first step that so many percent did not exceed."""
        times = sorted(answer.first_s for answer in self.answers)
        return 1000 * times[-(-len(times) * percent // 100) - 1]


async def closed(contender: Contender, bodies: Sequence[dict[str, Any]], concurrency: int) -> Turn:
    """All in order, never more than ``concurrency`` at once."""
    free = asyncio.Semaphore(concurrency)

    async def one(http: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
        async with free:
            return await ask(http, contender, body, time.perf_counter())

    return await _all(contender, bodies, one)


async def open_loop(contender: Contender, bodies: Sequence[dict[str, Any]], rate: float, seed: int) -> Turn:
    """A Poisson process of so many a second, whatever the answers do."""
    rng, begin_s = random.Random(f"open:{seed}"), time.perf_counter()
    due_s = iter([begin_s := begin_s + rng.expovariate(rate) for _ in bodies])

    async def one(http: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
        due = next(due_s)
        await asyncio.sleep(due - time.perf_counter())
        return await ask(http, contender, body, due, may_refuse=True)

    return await _all(contender, bodies, one)


async def _all(contender: Contender, bodies: Sequence[dict[str, Any]], one: Any) -> Turn:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        begin_s = time.perf_counter()
        answers = await asyncio.gather(*(one(http, body) for body in bodies))
        seconds = time.perf_counter() - begin_s
    given = [answer for answer in answers if not answer.is_refused]
    if not given:
        raise SystemExit(f"not measured: {contender.name} refuses all")
    for answer in given:
        answer.read()
    return Turn(given, seconds, len(answers) - len(given))


async def ask(
    http: aiohttp.ClientSession, contender: Contender, body: dict[str, Any], due_s: float, *, may_refuse: bool = False
) -> Answer:
    answer = Answer(due_s)
    told = {**body, "model": contender.model}
    async with http.post(f"{contender.url}/v1/chat/completions", json=told) as response:
        if may_refuse and response.status in REFUSALS:
            answer.is_refused = True
            return answer
        if response.status != 200:
            raise SystemExit(f"not measured: {contender.name} answers {response.status}: {await response.text()}")
        async for part in response.content.iter_any():
            answer.parts.append((time.perf_counter(), part))
    return answer
