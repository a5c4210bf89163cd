"""A Redis Cluster of three nodes on loopback, each with a third of the slots."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.broker.redis_server import START_S, RedisServer

NUM_SLOTS = 16384
NUM_NODES = 3
BUS_OFFSET = 10000
LAST_PORT = 65535


class RedisClusterServers:
    def __init__(self, folder: Path) -> None:
        self._nodes = [self._node(folder / f"node-{number}") for number in range(NUM_NODES)]

    @property
    def url(self) -> str:
        return self._nodes[0].url

    @property
    def nodes(self) -> tuple[RedisServer, ...]:
        return tuple(self._nodes)

    def start(self) -> Self:
        """Returns when all slots are served."""
        for node in self._nodes:
            node.start()
        share = NUM_SLOTS // NUM_NODES
        for number, node in enumerate(self._nodes):
            first = number * share
            last = NUM_SLOTS - 1 if number == NUM_NODES - 1 else first + share - 1
            assert node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)).startswith(b"+OK")
            node.command("CLUSTER", "MEET", "127.0.0.1", str(self._nodes[0].port))
        deadline = time.monotonic() + START_S
        while not all(self._knows_all(node) for node in self._nodes):
            if time.monotonic() > deadline:
                raise RuntimeError("the nodes do not find each other")
            time.sleep(0.05)
        return self

    def _knows_all(self, node: RedisServer) -> bool:
        info = node.command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:%d" % NUM_NODES in info

    @staticmethod
    def _node(folder: Path) -> RedisServer:
        """The bus of a node listens on its port plus 10,000."""
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        while True:
            node = RedisServer(folder, options=options)
            if node.port + BUS_OFFSET <= LAST_PORT:
                return node

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes:
            node.kill()
