"""Questions about mazes to the embedded model, and what the plain engine answers: whole answers, a block in each."""

from collections.abc import Sequence
from dataclasses import replace

from model_runner.ablation.samples import donor_requests
from model_runner.engine.base import EngineRequest
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.settings import LatentAblation
from tests.gpu.engines import read
from tests.gpu.scenarios import Case, answered, answered_plainly, renamed
from tests.model_runner.folders import MAZE_TINY
from tests.parity.traces import text_request

NUM_MAZES = 12
MAX_TOKENS = 64
# 11 blocks of 32 tokens: too few for eight mazes, so some are stopped and computed again.
TIGHT = {"num_kv_blocks": 12, "max_model_len": 256, "max_num_batched_tokens": 256}


def requests() -> list[EngineRequest]:
    checkpoint, defaults = read(MAZE_TINY, is_cpu=True)
    asked = donor_requests(None, checkpoint, defaults)[:NUM_MAZES]
    return [replace(one, sampling=replace(one.sampling, max_tokens=MAX_TOKENS)) for one in asked]


async def expected_of(mode: LatentAblation) -> list[Case]:
    return await answered_plainly(MAZE_TINY, requests(), mode)


async def text_only() -> list[Case]:
    asked = [text_request(tuple(range(40 + n, 80 + n)), f"text-{n}", max_tokens=24) for n in range(4)]
    return await answered_plainly(MAZE_TINY, asked)


async def alone_and_all_at_once(engine: VllmEngine, cases: Sequence[Case]) -> None:
    """On an engine that is ``TIGHT``: two alone, then all together, and some of them preempted."""
    spec = read(MAZE_TINY, is_cpu=True)[0].spec
    assert all(spec.pad_id in case.ids for case in cases)
    for case in cases[:2]:
        await answered(engine, [case])
    before = (await engine.stats()).num_preemptions
    await answered(engine, renamed(cases, "together"))
    assert (await engine.stats()).num_preemptions > before
