"""Model Runner V2 gives the recorded tokens too: its own kernels and, where named, our Triton kernels, interpreted.

Checkpoints are cut to the tokens of their recordings (``small_vocabulary.py``). That V1 gives the same is what
``tests/parity`` shows.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from model_runner.generation import GenerationDefaults
from tests.gpu import scenarios
from tests.gpu.engines import read, running
from tests.parity.traces import NAMES, PAD_ID, K, read_traces, request_of
from tests.v2.small_vocabulary import Translated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.asyncio(loop_scope="module")]
BLOCK_SIZE = 32
CASES = [(name, worker) for name in NAMES for worker in ("CpuWorker", "CpuTritonWorker")]


@dataclass
class Served:
    name: str
    engine: Any
    defaults: GenerationDefaults
    kernels: str


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CASES, ids=["-".join(case) for case in CASES])
async def served(request, small_of, golden_folders):
    name, worker = request.param
    folder, vocabulary = small_of(name)
    _, defaults = read(golden_folders[name], is_cpu=True)  # ends are told in recorded ids, and translated below
    async with running(
        folder, is_cpu=True, runner="V2", graphs="eager", worker=worker, block_size=BLOCK_SIZE
    ) as engine:
        kernels = "kernel" if worker == "CpuTritonWorker" else "host"
        yield Served(name, Translated(engine, vocabulary), defaults, kernels)


async def test_it_is_v2_with_the_kernels_of_this_case(served):
    assert await served.engine.worker_call("kernels") == f"{served.kernels} on V2"


@pytest.mark.parametrize("size", [1, 3, 8])
async def test_batches(served, size):
    await scenarios.a_batch(served.engine, served.name, served.defaults, size)


async def test_whole_traces(served):
    await scenarios.whole_traces(served.engine, served.name, served.defaults)


async def test_a_warm_cache(served):
    await scenarios.a_warm_cache(served.engine, served.name, served.defaults)


async def test_shared_histories(served):
    await scenarios.shared_histories(served.engine, served.name, served.defaults, BLOCK_SIZE)


async def test_latents_off(served):
    await scenarios.latents_off(served.engine, served.name, served.defaults)


async def test_beside_text(served):
    await scenarios.beside_text(served.engine, served.name, served.defaults)


async def test_sampled(served):
    """vLLM's kernel for top-k and top-p is more than Triton's interpreter knows."""
    await scenarios.sampled(served.engine, served.name, served.defaults, longest=40, cuts_tail=False)


async def test_traced_vectors(served):
    await scenarios.traced_vectors(served.engine, served.name, served.defaults)


@pytest.mark.parametrize("max_replayed_pads", [0, 1000])
@pytest.mark.parametrize("name", NAMES)
async def test_preempted(name, max_replayed_pads, small_of, golden_folders):
    """15 blocks of 32 tokens for eight requests; pads of those that come again a step each, or replayed."""
    folder, vocabulary = small_of(name)
    _, defaults = read(golden_folders[name], is_cpu=True)
    tight = {"num_kv_blocks": 16, "max_model_len": 256, "prefix_caching": False, "max_num_batched_tokens": 256}
    async with running(
        folder,
        is_cpu=True,
        runner="V2",
        graphs="eager",
        worker="CpuTritonWorker",
        max_replayed_pads=max_replayed_pads,
        **tight,
    ) as engine:
        await scenarios.preempted(Translated(engine, vocabulary), name, defaults)
        counts = (await engine.stats()).model
    assert (counts["replays"] > 0) == (max_replayed_pads > 0)
    pictures = [image.id for case in scenarios.recorded(name, defaults, 8, "tight") for image in case.request.images]
    # Each is counted when its request comes, and not again when it resumes.
    assert counts["encoder_cache_hits"] <= len(pictures) - len(set(pictures))


@pytest.mark.parametrize("worker", ["CpuWorker", "CpuTritonWorker"])
async def test_fixed_blocks(worker, small_of, golden_folders):
    folder, vocabulary = small_of("c")
    _, defaults = read(golden_folders["c"], is_cpu=True)
    asked = [request_of(trace, defaults, f"fixed-{trace.index}", max_tokens=40) for trace in read_traces("c")]
    asked = [replace(one, prompt_ids=vocabulary.new(one.prompt_ids)) for one in asked]
    cases = await scenarios.answered_plainly(folder, asked, rule="fixed")
    (pad_id,) = vocabulary.new([PAD_ID])
    assert sum(case.ids.count(pad_id) >= K for case in cases) > 1
    async with running(folder, is_cpu=True, runner="V2", graphs="eager", worker=worker, latent_exit="fixed") as engine:
        await scenarios.answered(engine, cases)


async def test_noise_in_place_of_latents(small_of, golden_folders):
    """The numbers of each request follow it to its place in the batch, which V2 gives anew in every step."""
    folder, vocabulary = small_of("b")
    own = scenarios.recorded("b", read(golden_folders["b"], is_cpu=True)[1], 8, "noise")
    own = [
        scenarios.Case(
            replace(case.request, prompt_ids=vocabulary.new(case.request.prompt_ids)), vocabulary.new(case.ids)
        )
        for case in own
    ]
    cases = await scenarios.answered_plainly(folder, [case.request for case in own], "noise")
    assert scenarios.num_changed(cases, own) >= 6
    async with running(
        folder, is_cpu=True, runner="V2", graphs="eager", worker="CpuTritonWorker", latent_ablation="noise"
    ) as engine:
        await scenarios.answered(engine, cases)
        await scenarios.answered(engine, scenarios.renamed(list(reversed(cases)), "reversed"))
