"""A gateway with the embedded broker and a scripted runner, for loads: ``python -m tests.loadtests.server``."""

from typing import Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from service.app import create_app
from service.settings import ServiceSettings
from service.write_timeout import DroppableProtocol
from tests.scripted_runner import ScriptedRunner

ROOM, MAX_WAITING = 16, 32
DELAY_S = 0.03  # before each of the 14 events of an answer


class Server(uvicorn.Server):
    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


async def main() -> None:
    broker = EmbeddedBroker(BrokerLimits(max_waiting=MAX_WAITING))
    runner = ScriptedRunner(broker, room=ROOM)
    runner.delay_s = DELAY_S
    await runner.start()
    app = create_app(broker, ServiceSettings(disconnect_grace_s=0.3), CollectorRegistry())
    await Server(
        uvicorn.Config(app, port=0, http=DroppableProtocol, log_level="warning", timeout_graceful_shutdown=2)
    ).serve()
    await runner.aclose()
    await broker.aclose()


if __name__ == "__main__":
    uvloop.run(main())
