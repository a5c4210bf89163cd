"""A fleet with the pace at which it is asked, and one way to break it while it is."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.faults.crowd import Crowd
from tests.faults.fleet import Fleet
from tests.faults.in_redis import responses_in_redis
from tests.faults.process import Process
from tests.faults.record import Record, Request
from tests.faults.table import keep
from tests.faults.verdict import Verdict, judge, require_nothing_lost


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The crowd's, and for how long things stay broken.

    before_s: between the crowd being complete and the fault; after_s: from its repair until nobody asks any more.
    """

    in_flight: int
    rate_per_s: float
    patience_s: float
    before_s: float
    after_s: float
    pause_s: float
    outage_s: float


@dataclass(frozen=True, kw_only=True)
class World:
    """``make`` is a request with its right answer; ``runs`` what engines say that they began, if they do.

    hold_engine: while the block runs no answer of this runner goes on, where answers are so short that else none would
    be left to hand back.
    """

    model: str
    fleet: Fleet
    pace: Pace
    make: Callable[[int], Request]
    kill_engine: Callable[[Process], None]
    hold_engine: Callable[[Process], AbstractContextManager[None]]
    runs: Callable[[], dict[int, set[str]]]

    def crowd(self) -> Crowd:
        pace = self.pace
        return Crowd(
            self.fleet.urls,
            self.make,
            in_flight=pace.in_flight,
            rate_per_s=pace.rate_per_s,
            patience_s=pace.patience_s,
        )


Break = Callable[[World], Awaitable[Sequence[Record] | None]]  # what clients of its own have to show, if it has any


async def run_scenario(world: World, name: str, break_it: Break, *, may_fail: bool = False) -> Verdict:
    """Break it, and repair it, while the crowd asks; then look at every answer and every slot.

    Raises ``AssertionError`` unless nothing was lost, nothing answered twice, nothing wrong and every slot is free.
    """
    crowd = world.crowd()
    began = time.monotonic()
    async with crowd.asking():
        await crowd.until_full()
        await asyncio.sleep(world.pace.before_s)
        own = await break_it(world)
        await asyncio.sleep(world.pace.after_s)
    records = [*crowd.records, *(own or ())]
    seconds = time.monotonic() - began
    in_redis = await responses_in_redis(world.fleet.redis.url)
    made = {number: set(ids) for number, ids in in_redis.items()}
    for number, ids in world.runs().items():
        made.setdefault(number, set()).update(ids)
    verdict = judge(name, records, made, seconds, in_redis)
    keep(world.model, verdict)
    require_nothing_lost(verdict, records, made, in_redis, may_fail=may_fail)
    await world.fleet.until_ready()
    await world.fleet.until_settled()
    return verdict
