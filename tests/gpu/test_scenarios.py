"""The scenarios on a CPU, on Model Runner V1: their first run on a GPU must not be their first run."""

import pytest
import pytest_asyncio

from tests.gpu import scenarios
from tests.gpu.engines import read, running
from tests.parity.traces import NAMES, PAD_ID, START_ID, K, read_traces

pytestmark = pytest.mark.asyncio(loop_scope="module")
BLOCK_SIZE = 32
A_WORD = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(golden_folders):
    folder = golden_folders["c"]
    _, defaults = read(folder, is_cpu=True)
    async with running(
        folder, is_cpu=True, runner="V1", graphs="eager", worker="CpuWorker", block_size=BLOCK_SIZE, max_num_seqs=17
    ) as engine:
        yield engine, defaults


async def test_batches(served):
    engine, defaults = served
    await engine.worker_call("take_modes")
    await scenarios.a_batch(engine, "c", defaults, 17)
    assert await engine.worker_call("kernels") == "host on V1"
    modes = await engine.worker_call("take_modes")
    assert set(modes) == {"NONE"}
    assert modes["NONE"] >= max(scenarios.LENGTHS)


async def test_all_else(served):
    engine, defaults = served
    await scenarios.a_warm_cache(engine, "c", defaults)
    await scenarios.shared_histories(engine, "c", defaults, BLOCK_SIZE)
    await scenarios.latents_off(engine, "c", defaults)
    await scenarios.beside_text(engine, "c", defaults)
    await scenarios.traced_vectors(engine, "c", defaults)


@pytest.mark.slow
async def test_sampled(served):
    engine, defaults = served
    await scenarios.sampled(engine, "c", defaults)


@pytest.mark.slow
async def test_fixed_blocks(golden_folders):
    folder = golden_folders["c"]
    _, defaults = read(folder, is_cpu=True)
    cases = await scenarios.fixed_cases(folder, "c", defaults)
    async with running(
        folder, is_cpu=True, runner="V1", graphs="eager", worker="CpuWorker", latent_exit="fixed"
    ) as engine:
        await scenarios.fixed_blocks(engine, cases)


@pytest.mark.slow
async def test_whole_traces(served):
    engine, defaults = served
    await scenarios.whole_traces(engine, "c", defaults)


@pytest.mark.parametrize("name", NAMES)
async def test_recorded_blocks_are_well_formed(name):
    for trace in read_traces(name):
        assert scenarios.is_well_formed(trace.output_ids)
        start = trace.output_ids.index(START_ID)
        for wrong in ((A_WORD,), (PAD_ID,) * (K + 1)):
            assert not scenarios.is_well_formed((*trace.output_ids[: start + 1], *wrong))


async def test_a_wrong_token_is_told(served):
    engine, defaults = served
    (case,) = scenarios.recorded("c", defaults, 1, "wrong", longest=5)
    wrong = scenarios.Case(case.request, (*case.ids[:3], case.ids[3] + 1, *case.ids[4:]))
    with pytest.raises(AssertionError, match="1 of 1 differ"):
        await scenarios.answered(engine, [wrong])


@pytest.mark.slow
async def test_preempted(golden_folders):
    folder = golden_folders["c"]
    _, defaults = read(folder, is_cpu=True)
    tight = {"num_kv_blocks": 16, "max_model_len": 256, "prefix_caching": False}
    async with running(folder, is_cpu=True, runner="V1", graphs="eager", worker="CpuWorker", **tight) as engine:
        await scenarios.preempted(engine, "c", defaults)


@pytest.mark.slow
async def test_bfloat16(golden_folders):
    folder = golden_folders["b"]
    _, defaults = read(folder, is_cpu=True)
    async with running(
        folder, is_cpu=True, runner="V1", graphs="eager", worker="CpuWorker", dtype="bfloat16"
    ) as engine:
        await scenarios.roughly(engine, "b", defaults)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_compiled(golden_folders):
    """vLLM compiles the language model in its first, empty run; decode, prompts and replays call the same code."""
    folder = golden_folders["b"]
    _, defaults = read(folder, is_cpu=True)
    async with running(
        folder, is_cpu=True, runner="V1", graphs="PIECEWISE", worker="CpuWorker", max_replayed_pads=1000
    ) as engine:
        assert engine._llm.vllm_config.compilation_config.mode.name == "DYNAMO_TRACE_ONCE"  # no graphs on a CPU
        await scenarios.a_batch(engine, "b", defaults, 8)
        await scenarios.shared_histories(engine, "b", defaults, BLOCK_SIZE)
        assert (await engine.stats()).model["replays"] > 0
