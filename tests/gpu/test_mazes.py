"""Whole answers of the embedded model on a GPU, own latents or others: as the plain engine gives them on a CPU."""

import pytest

from tests.gpu import mazes
from tests.gpu.engines import running
from tests.gpu.scenarios import answered, num_changed, renamed
from tests.model_runner.folders import MAZE_TINY

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("runner", ["V1", "V2"])
@pytest.mark.parametrize("mode", ["none", "swap"])
async def test_alone_and_all_at_once(mode, runner):
    cases = await mazes.expected_of(mode)
    async with running(
        MAZE_TINY,
        is_cpu=False,
        runner=runner,
        graphs="FULL_AND_PIECEWISE",
        worker="GpuWorker",
        latent_ablation=mode,
        **mazes.TIGHT,
    ) as engine:
        await mazes.alone_and_all_at_once(engine, cases)
        assert await engine.worker_call("num_addresses") == 1
        assert (await engine.worker_call("take_modes"))["FULL"] > 0
        assert await engine.worker_call("kernels") == f"kernel on {runner}"
    if mode != "none":
        assert num_changed(cases, await mazes.expected_of("none")) > 0


async def test_a_server_without_images():
    """Then vLLM gives no embeddings, and the model class makes them at an address that graphs may keep."""
    cases = await mazes.text_only()
    async with running(
        MAZE_TINY, is_cpu=False, runner="V2", graphs="FULL_AND_PIECEWISE", worker="GpuWorker", max_images=0
    ) as engine:
        for case in cases:
            await answered(engine, [case])
        await answered(engine, renamed(cases, "again"))
        assert await engine.worker_call("num_addresses") == 1
