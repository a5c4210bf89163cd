"""Engines of one run, and asking them: all through the engine Protocol, without HTTP."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.decode.models import BenchModel
from model_runner.engine.base import Engine, EngineRequest
from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.settings import RunnerSettings

CONTEXT_TOKENS = 2048
CLOCKED = {"worker_cls": "benchmarks.decode.clocked_worker.ClockedWorker"}


@dataclass(frozen=True, slots=True)
class Answers:
    """ids: of each request in the order asked. first_s: from asking to the first token. seconds: until all ended."""

    ids: list[tuple[int, ...]]
    first_s: list[float]
    seconds: float

    def __add__(self, later: "Answers") -> "Answers":
        return Answers(self.ids + later.ids, self.first_s + later.first_s, self.seconds + later.seconds)

    @property
    def num_tokens(self) -> int:
        return sum(len(ids) for ids in self.ids)

    @property
    def tokens_a_second(self) -> float:
        return self.num_tokens / self.seconds


def set_threads(num_threads: int) -> None:
    """Of this process, where plain transformers computes, and of engine processes that start from now on."""
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)


def start_sequential(model: BenchModel) -> TransformersEngine:
    return TransformersEngine.start(_settings(model), model.checkpoint, model.defaults)


@asynccontextmanager
async def served(
    model: BenchModel, arguments: dict[str, Any] | None = None, **settings: object
) -> AsyncIterator[VllmEngine]:
    """Our engine as it is served, but for ``settings`` of it, and ``arguments`` of vLLM that it has none for."""
    told = _settings(model, **settings)
    engine = VllmEngine.start(told, model.checkpoint, model.defaults, arguments=arguments or {})
    try:
        yield engine
    finally:
        await engine.aclose()


async def ask(engine: Engine, requests: Sequence[EngineRequest], concurrency: int) -> Answers:
    """All requests in order, never more than ``concurrency`` at once."""
    free = asyncio.Semaphore(concurrency)
    started_s = time.perf_counter()
    answers = await asyncio.gather(*(_one(engine, request, free) for request in requests))
    seconds = time.perf_counter() - started_s
    return Answers([ids for ids, _ in answers], [first_s for _, first_s in answers], seconds)


async def _one(engine: Engine, request: EngineRequest, free: asyncio.Semaphore) -> tuple[tuple[int, ...], float]:
    async with free:
        asked_s = time.perf_counter()
        first_s = None
        ids: list[int] = []
        async for delta in engine.generate(request):
            first_s = first_s or time.perf_counter() - asked_s
            ids += delta.ids
    assert first_s is not None
    return tuple(ids), first_s


async def forget(engine: VllmEngine) -> None:
    """Prefixes and pictures, so that a question asked again is as good as new."""
    if not await engine.reset_prefix_cache():
        raise SystemExit("not measured: the engine still uses KV blocks although nothing is asked")


def _settings(model: BenchModel, **changed: object) -> RunnerSettings:
    told: dict[str, Any] = {"dtype": model.dtype, "max_model_len": CONTEXT_TOKENS, "max_num_seqs": 64, **changed}
    return RunnerSettings(model=model.checkpoint.folder, **told)
