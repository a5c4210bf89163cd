"""Whole answers of the embedded model on Model Runner V2, own latents or others: as the plain engine gives them."""

import pytest

from tests.gpu import mazes
from tests.gpu.engines import running
from tests.gpu.scenarios import answered, num_changed, renamed
from tests.model_runner.folders import MAZE_TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("mode", ["none", "swap"])
async def test_alone_and_all_at_once(mode):
    cases = await mazes.expected_of(mode)
    async with running(
        MAZE_TINY,
        is_cpu=True,
        runner="V2",
        graphs="eager",
        worker="CpuTritonWorker",
        latent_ablation=mode,
        **mazes.TIGHT,
    ) as engine:
        await mazes.alone_and_all_at_once(engine, cases)
        assert await engine.worker_call("num_addresses") == 1
        assert await engine.worker_call("kernels") == "kernel on V2"
    if mode != "none":  # or what is fed would not matter
        assert num_changed(cases, await mazes.expected_of("none")) > 0


async def test_a_server_without_images():
    """Then vLLM gives no embeddings, and the model class makes them."""
    cases = await mazes.text_only()
    async with running(MAZE_TINY, is_cpu=True, runner="V2", graphs="eager", worker="CpuWorker", max_images=0) as engine:
        for case in cases:
            await answered(engine, [case])
        await answered(engine, renamed(cases, "again"))
        assert await engine.worker_call("num_addresses") == 1
