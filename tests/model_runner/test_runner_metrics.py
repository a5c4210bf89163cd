"""What the runner's metrics say of it while it works, drains and loses its engine."""

import time

from tests.model_runner.test_runner_ends import spare
from tests.model_runner.world import HELD, Start, World


async def test_at_work(start: Start) -> None:
    before_s = time.time()
    async with start(HELD, max_num_seqs=3) as world:
        await world.submit("resp_a")
        await world.engine.until_open(1)
        await world.runner.announce()  # which beats once more
        assert world.count("ilvr_runner_responses_in_flight") == 1
        assert world.count("ilvr_runner_max_responses_in_flight") == 3
        assert world.count("ilvr_runner_ready") == world.count("ilvr_runner_engine_alive") == 1
        heard_at = world.count("ilvr_runner_last_heartbeat_timestamp_seconds")
        assert heard_at is not None
        assert before_s <= heard_at <= time.time()
        world.engine.may_go_on.set()
        await world.ended("resp_a")
        assert world.count("ilvr_runner_attempts_not_ended_total") == 0
        assert _num_gaps(world) > 0


async def test_draining(start: Start) -> None:
    async with start(HELD) as world:
        await world.submit("resp_a")
        await world.engine.until_open(1)
        await spare(world.broker)
        await world.runner.drain(0.05)
        assert world.count("ilvr_runner_attempts_not_ended_total") == 1
        assert world.count("ilvr_runner_ready") == 0
        assert world.count("ilvr_runner_engine_alive") == 1


async def test_without_its_engine(start: Start) -> None:
    async with start(HELD) as world:
        await world.submit("resp_a")
        await world.engine.until_open(1)
        world.engine.die()
        await world.ended("resp_a")
        assert world.count("ilvr_runner_ready") == world.count("ilvr_runner_engine_alive") == 0
        assert world.count("ilvr_runner_attempts_not_ended_total") == 1


def _num_gaps(world: World) -> float:
    return world.count("ilvr_runner_text_gap_seconds_count") or 0
