"""Whole answers of the embedded model on Model Runner V2: as the plain engine gives them, also with ablated latents."""

from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from model_runner.ablation.samples import donor_requests
from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.settings import RunnerSettings
from tests.gpu import scenarios
from tests.gpu.engines import read, running
from tests.model_runner.folders import MAZE_TINY
from tests.parity.traces import answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.asyncio(loop_scope="module")]
NUM_MAZES = 12
MAX_TOKENS = 64
# 11 blocks of 32 tokens: too few for eight mazes, so some are stopped and computed again.
TIGHT = {"num_kv_blocks": 12, "max_model_len": 256, "max_num_batched_tokens": 256}


def mazes():
    checkpoint, defaults = read(MAZE_TINY, is_cpu=True)
    requests = donor_requests(None, checkpoint, defaults)[:NUM_MAZES]
    return [replace(one, sampling=replace(one.sampling, max_tokens=MAX_TOKENS)) for one in requests]


async def expected_of(mode: str) -> list[scenarios.Case]:
    """What the plain engine answers, one request after the other."""
    checkpoint, defaults = read(MAZE_TINY, is_cpu=True)
    settings = RunnerSettings(model=Path(MAZE_TINY), latent_ablation=mode)
    engine = TransformersEngine.start(settings, checkpoint, defaults)
    return [scenarios.Case(one, (await answer(engine, one))[0]) for one in mazes()]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["none", "noise", "swap"])
async def served(request):
    """(mode, engine short of room, what is to be answered)."""
    cases = await expected_of(request.param)
    async with running(
        MAZE_TINY,
        is_cpu=True,
        runner="V2",
        graphs="eager",
        worker="CpuTritonWorker",
        latent_ablation=request.param,
        **TIGHT,
    ) as engine:
        yield request.param, engine, cases


async def test_alone_and_all_at_once(served):
    _, engine, cases = served
    spec = read(MAZE_TINY, is_cpu=True)[0].spec
    assert all(case.ids.count(spec.pad_id) == spec.size for case in cases)  # each thinks in one whole block
    for case in cases[:2]:
        await scenarios.answered(engine, [case])
    before = (await engine.stats()).num_preemptions
    again = [
        scenarios.Case(replace(case.request, request_id=f"{case.request.request_id}-b"), case.ids) for case in cases
    ]
    await scenarios.answered(engine, again)
    assert (await engine.stats()).num_preemptions > before
    assert await engine.worker_call("kernels") == "kernel on V2"


async def test_ablations_change_answers(served):
    """Or the test above would say nothing of what is fed."""
    mode, _, cases = served
    own = await expected_of("none")
    changed = sum(a.ids != b.ids for a, b in zip(own, cases, strict=True))
    assert (changed > 0) == (mode != "none")
