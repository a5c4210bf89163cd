"""A gateway with a scripted runner, as a process of its own: ``python -m tests.soak.server [REDIS_URL]``.

The broker is the embedded one, or that on Redis: the same object for both sides, so that what either keeps would show.

Everything that is kept for a while has a small bound, so that all of them are reached soon and memory can be flat.
"""

import sys
from collections import deque
from typing import Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from broker.redis.broker import RedisBroker
from broker.settings import BrokerSettings
from contracts.responses import LatentStep, Step, TextStep
from service.app import create_app
from service.settings import ServiceSettings
from service.write_timeout import DroppableProtocol
from tests.scripted_runner import ScriptedRunner

# Long enough that what is kept of a few hundred responses too many would show.
STEPS: tuple[Step, ...] = (
    TextStep(index=0, text="Holes: second row.\nLet me " * 200),
    LatentStep(index=1, size=8, exit="full", duration_ms=3.5),
    TextStep(index=2, text=" So the path is \\boxed{RRDD} ✓" * 200),
)
ROOM = 8
DELAY_S = 0.02
NUM_EVENTS = 2 + 4 * len(STEPS)  # in_progress and the end; of a step its start, two deltas and its end
CAPACITY = ROOM / (DELAY_S * NUM_EVENTS)  # answers a second
KIB = 1 << 10
LIMITS = BrokerLimits(max_waiting=16, max_finished_bytes=4096 * KIB, max_image_bytes=512 * KIB)


class Server(uvicorn.Server):
    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def on_redis(url: str) -> RedisBroker:
    return RedisBroker(
        BrokerSettings(redis_url=url, max_waiting=LIMITS.max_waiting, max_image_bytes=LIMITS.max_image_bytes)
    )


async def main(redis_url: str = "") -> None:
    broker = on_redis(redis_url) if redis_url else EmbeddedBroker(LIMITS)
    runner = ScriptedRunner(broker, room=ROOM)
    runner.steps, runner.delay_s = STEPS, DELAY_S
    runner.jobs = deque(maxlen=1)  # else the double itself grows by every question
    await runner.start()
    settings = ServiceSettings(disconnect_grace_s=0.5, write_timeout_s=2.0, ping_interval_s=1.0)
    app = create_app(broker, settings, CollectorRegistry())
    await Server(
        uvicorn.Config(app, port=0, http=DroppableProtocol, log_level="warning", timeout_graceful_shutdown=2)
    ).serve()
    await runner.aclose()
    await broker.aclose()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
