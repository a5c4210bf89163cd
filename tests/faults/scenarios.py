"""A fleet broken in every way, with whatever engines ``world`` has: each class of tests below gives its own."""

from tests.faults import breaks
from tests.faults.world import World, run_scenario


class Scenarios:
    async def test_nothing_is_broken(self, world: World) -> None:
        verdict = await run_scenario(world, "nothing", breaks.nothing)
        assert verdict.restarted == 0

    async def test_a_runner_is_killed(self, world: World) -> None:
        verdict = await run_scenario(world, "kill -9 a runner", breaks.kill_runner)
        assert verdict.restarted > 0

    async def test_an_engine_is_killed(self, world: World) -> None:
        verdict = await run_scenario(world, "kill -9 an engine process", breaks.kill_engine)
        assert verdict.restarted > 0

    async def test_a_gateway_is_killed(self, world: World) -> None:
        verdict = await run_scenario(world, "kill -9 a gateway", breaks.kill_gateway)
        assert verdict.resumed > 0

    async def test_redis_is_killed_and_comes_back_with_its_file(self, world: World) -> None:
        await run_scenario(world, "kill -9 Redis, with its file", breaks.restart_redis)

    async def test_redis_is_killed_and_comes_back_empty(self, world: World) -> None:
        await run_scenario(world, "kill -9 Redis, file gone", breaks.restart_redis_empty, may_fail=True)

    async def test_a_runner_is_paused(self, world: World) -> None:
        verdict = await run_scenario(world, "pause a runner", breaks.pause_runner)
        assert verdict.restarted > 0

    async def test_the_network_to_redis_is_bad(self, world: World) -> None:
        await run_scenario(world, "bad network to Redis", breaks.slow_network)

    async def test_a_runner_is_told_to_end(self, world: World) -> None:
        verdict = await run_scenario(world, "SIGTERM a runner", breaks.terminate_runner)
        assert verdict.restarted > 0  # what the grace was too short for

    async def test_a_gateway_is_told_to_end(self, world: World) -> None:
        verdict = await run_scenario(world, "SIGTERM a gateway", breaks.terminate_gateway)
        assert verdict.resumed > 0

    async def test_a_request_is_submitted_many_times_at_once(self, world: World) -> None:
        await run_scenario(world, "20 submissions with one key", breaks.submit_again)

    async def test_clients_hop_between_gateways(self, world: World) -> None:
        await run_scenario(world, "clients hop between gateways", breaks.hop)
