"""On a GPU: the recorded tokens, eager and with captured graphs, on both model runners, in float32; bfloat16 roughly.

**Never run to its end**: on the one GPU so far, none of thirteen engines at once came up (``docs/gpu.md``).

Each engine gets every scenario that ``test_scenarios.py`` runs on a CPU. What is new here is the device, Triton
compiled instead of interpreted, asynchronous scheduling, KV blocks of 16 tokens, and graphs, which are really taken.
"""

from dataclasses import dataclass

import pytest
import pytest_asyncio

from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults
from tests.gpu import scenarios
from tests.gpu.engines import Graphs, Runner, read, running

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]
SIZES = (1, 3, 8, 17, 64)
# (runner, graphs, recorded checkpoint, tokens in a KV block): every pair of runner and graphs, both checkpoints, both
# sizes of blocks.
CASES: list[tuple[Runner, Graphs, str, int]] = [
    ("V2", "FULL_AND_PIECEWISE", "b", 16),
    ("V2", "FULL_AND_PIECEWISE", "c", 32),
    ("V2", "PIECEWISE", "c", 16),
    ("V2", "eager", "b", 32),
    ("V1", "FULL_AND_PIECEWISE", "b", 32),
    ("V1", "FULL_AND_PIECEWISE", "c", 16),
    ("V1", "PIECEWISE", "b", 16),
    ("V1", "eager", "c", 32),
]


@dataclass
class Served:
    runner: Runner
    graphs: Graphs
    name: str
    block_size: int
    engine: VllmEngine
    defaults: GenerationDefaults


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=CASES, ids=["-".join(map(str, case)) for case in CASES]
)
async def served(request, golden_folders):
    runner, graphs, name, block_size = request.param
    folder = golden_folders[name]
    _, defaults = read(folder, is_cpu=False)
    async with running(
        folder,
        is_cpu=False,
        runner=runner,
        graphs=graphs,
        worker="GpuWorker",
        block_size=block_size,
        max_num_seqs=max(SIZES),
    ) as engine:
        yield Served(runner, graphs, name, block_size, engine, defaults)


async def test_it_is_what_was_asked_for(served):
    assert await served.engine.worker_call("kernels") == f"kernel on {served.runner}"
    config = served.engine._llm.vllm_config
    assert config.scheduler_config.async_scheduling
    assert config.cache_config.block_size == served.block_size
    mode = config.compilation_config.cudagraph_mode.name
    assert mode == ("NONE" if served.graphs == "eager" else served.graphs)


@pytest.mark.parametrize("size", SIZES)
async def test_batches_and_the_graphs_they_take(served, size):
    """Steps with a prompt take piecewise graphs or none; of plain decode steps nearly all take a full one."""
    await served.engine.worker_call("take_modes")
    await scenarios.a_batch(served.engine, served.name, served.defaults, size)
    modes = await served.engine.worker_call("take_modes")
    if served.graphs == "eager":
        assert set(modes) == {"NONE"}
    elif served.graphs == "PIECEWISE":
        assert "FULL" not in modes
        assert modes["PIECEWISE"] > 20
    else:
        assert modes["FULL"] > 20
        assert modes.get("PIECEWISE", 0) + modes.get("NONE", 0) >= 1


async def test_whole_traces(served):
    await scenarios.whole_traces(served.engine, served.name, served.defaults)


async def test_a_warm_cache(served):
    await scenarios.a_warm_cache(served.engine, served.name, served.defaults)


async def test_shared_histories(served):
    """The trap of same-step sharing, with full graphs: a newcomer's step must not be replayed."""
    await scenarios.shared_histories(served.engine, served.name, served.defaults, served.block_size)


async def test_latents_off(served):
    await scenarios.latents_off(served.engine, served.name, served.defaults)


async def test_beside_text(served):
    await scenarios.beside_text(served.engine, served.name, served.defaults)


async def test_sampled(served):
    await scenarios.sampled(served.engine, served.name, served.defaults)


async def test_traced_vectors(served):
    """While latents are traced no full graph is taken: Python writes the trace."""
    await served.engine.worker_call("take_modes")
    await scenarios.traced_vectors(served.engine, served.name, served.defaults)
    assert "FULL" not in await served.engine.worker_call("take_modes")
    await scenarios.a_batch(served.engine, served.name, served.defaults, 3)
    assert ("FULL" in await served.engine.worker_call("take_modes")) == (served.graphs == "FULL_AND_PIECEWISE")


@pytest.mark.parametrize("graphs", ["eager", "FULL_AND_PIECEWISE"])
@pytest.mark.parametrize("runner", ["V1", "V2"])
async def test_fixed_blocks(runner, graphs, golden_folders):
    _, defaults = read(golden_folders["c"], is_cpu=False)
    cases = await scenarios.fixed_cases(golden_folders["c"], "c", defaults)
    async with running(
        golden_folders["c"], is_cpu=False, runner=runner, graphs=graphs, worker="GpuWorker", latent_exit="fixed"
    ) as engine:
        await scenarios.fixed_blocks(engine, cases)


@pytest.mark.parametrize("max_replayed_pads", [0, 1000])
@pytest.mark.parametrize("graphs", ["PIECEWISE", "FULL_AND_PIECEWISE"])
@pytest.mark.parametrize("runner", ["V1", "V2"])
async def test_preempted(runner, graphs, max_replayed_pads, golden_folders):
    """31 blocks of 16 tokens for eight requests that grow to a dozen each."""
    _, defaults = read(golden_folders["b"], is_cpu=False)
    async with running(
        golden_folders["b"],
        is_cpu=False,
        runner=runner,
        graphs=graphs,
        worker="GpuWorker",
        block_size=16,
        num_kv_blocks=32,
        max_model_len=256,
        prefix_caching=False,
        max_replayed_pads=max_replayed_pads,
    ) as engine:
        await scenarios.preempted(engine, "b", defaults)
        replays = (await engine.stats()).model["replays"]
    if max_replayed_pads:  # else the scheduler splits at pads that it knows, and one may just be in flight
        assert replays > 0


async def test_bfloat16_as_production_has_it(golden_folders):
    """FlashAttention and what it does to graphs. Where all else here compares every token, this cannot."""
    folder = golden_folders["b"]
    _, defaults = read(folder, is_cpu=False)
    async with running(
        folder, is_cpu=False, runner="V2", graphs="FULL_AND_PIECEWISE", worker="GpuWorker", dtype="bfloat16"
    ) as engine:
        assert engine._llm.vllm_config.attention_config.backend.name == "FLASH_ATTN"
        await scenarios.roughly(engine, "b", defaults)
        assert (await engine.worker_call("take_modes"))["FULL"] > 20


@pytest.mark.parametrize("runner", ["V1", "V2"])
async def test_noise_in_place_of_latents(runner, golden_folders):
    """The numbers of each request follow it through the batch, into graphs too."""
    folder = golden_folders["b"]
    _, defaults = read(folder, is_cpu=False)
    own = scenarios.recorded("b", defaults, 8, "noise")
    cases = await scenarios.answered_plainly(folder, [case.request for case in own], "noise")
    assert scenarios.num_changed(cases, own) >= 6
    async with running(
        folder, is_cpu=False, runner=runner, graphs="FULL_AND_PIECEWISE", worker="GpuWorker", latent_ablation="noise"
    ) as engine:
        await scenarios.answered(engine, cases)
        await scenarios.answered(engine, scenarios.renamed(list(reversed(cases)), "reversed"))
        assert (await engine.worker_call("take_modes"))["FULL"] > 20


@pytest.mark.parametrize("runner", ["V1", "V2"])
async def test_the_reference_in_place_of_our_kernels(runner, golden_folders):
    """The definition of the latent step, captured in the same graphs, gives the same."""
    _, defaults = read(golden_folders["c"], is_cpu=False)
    async with running(
        golden_folders["c"],
        is_cpu=False,
        runner=runner,
        graphs="FULL_AND_PIECEWISE",
        worker="GpuReferenceWorker",
        block_size=16,
    ) as engine:
        assert await engine.worker_call("kernels") == f"reference on {runner}"
        await scenarios.a_batch(engine, "c", defaults, 8)
        assert (await engine.worker_call("take_modes"))["FULL"] > 20
