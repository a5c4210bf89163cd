"""Redis Cluster: no script touches two slots, and the contract holds on three real nodes."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from redis.crc import key_slot

from broker.limits import BrokerLimits
from broker.redis.broker import RedisBroker
from broker.redis.keys import Keys
from broker.redis.link import Argument, Link
from broker.redis.servers import Cluster
from contracts.broker import Broker
from contracts.errors import BrokerUnavailable, ResponseNotFound
from tests.broker.contract import BrokerContract, MakeBroker
from tests.broker.redis_brokers import settings
from tests.broker.redis_cluster import RedisClusterServers
from tests.broker.samples import job

SOON_S = 30.0  # until the nodes of a cluster have agreed that one is there again


class OneSlotLink(Link):
    """Fails where the keys of a script lie in more than one slot; counts what it saw."""

    seen: ClassVar[dict[str, set[int]]] = {}

    async def run(self, name: str, keys: Sequence[str], *args: Argument, **how: bool) -> Any:
        slots = {key_slot(key.encode()) for key in keys}
        assert len(slots) == 1, (name, keys)
        self.seen.setdefault(name, set()).update(slots)
        return await super().run(name, keys, *args, **how)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    with RedisClusterServers(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


class TestContractOnACluster(BrokerContract):
    @pytest.fixture
    async def make_broker(
        self, cluster: RedisClusterServers, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[MakeBroker]:
        from broker.redis import broker as module

        monkeypatch.setattr(module, "Link", OneSlotLink)
        made: list[Broker] = []

        async def make(limits: BrokerLimits) -> Broker:
            made.append(RedisBroker(settings(cluster.nodes[len(made) % 3], limits, redis_cluster=True)))
            return made[-1]

        yield make
        for broker in made:
            await broker.aclose()


def test_responses_images_and_owners_are_spread_over_slots() -> None:
    keys = Keys("ilvr")
    for names in (
        [keys.response(f"resp_{n}")[0] for n in range(50)],
        [keys.file(f"img_{n}")[0] for n in range(50)],
        [keys.bucket(f"owner-{n}")[0] for n in range(50)],
    ):
        assert len({key_slot(name.encode()) for name in names}) > 40
    for together in (keys.queue, keys.images, keys.readers("resp_a")):
        assert len({key_slot(name.encode()) for name in together}) == 1


async def test_a_slot_that_has_moved_is_found_again(cluster: RedisClusterServers) -> None:
    broker = RedisBroker(settings(cluster.nodes[0], redis_cluster=True))
    with pytest.raises(ResponseNotFound):
        await broker.job("resp_nobody_knows")
    (name, *_) = Keys("ilvr").response("resp_nobody_knows")
    slot = key_slot(name.encode())
    servers = broker._link._servers
    assert isinstance(servers, Cluster)
    ports = [node.port for node in cluster.nodes]
    before = ports.index(servers._address_of[slot][1])
    after = (before + 1) % len(ports)
    node_id = cluster.nodes[after].command("CLUSTER", "MYID").split()[1].decode()
    for node in (cluster.nodes[after], cluster.nodes[before], cluster.nodes[(after + 1) % 3]):
        assert node.command("CLUSTER", "SETSLOT", str(slot), "NODE", node_id).startswith(b"+OK")
    with pytest.raises(ResponseNotFound):
        await broker.job("resp_nobody_knows")
    assert servers._address_of[slot][1] == ports[after]
    await broker.aclose()


async def test_a_node_that_was_away_is_asked_again(cluster: RedisClusterServers) -> None:
    broker = RedisBroker(settings(cluster.nodes[0], redis_cluster=True))
    await broker.submit(job("resp_a"))
    servers = broker._link._servers
    assert isinstance(servers, Cluster)
    port = servers._address_of[key_slot(Keys("ilvr").jobs.encode())][1]
    (node,) = [node for node in cluster.nodes if node.port == port]
    node.kill()
    with pytest.raises(BrokerUnavailable):
        await broker.submit(job("resp_b"))
    node.start()
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await broker.submit(job("resp_c"))
                break
            except BrokerUnavailable:
                await asyncio.sleep(0.1)
        (lease,) = await broker.take("r1", room=1)
    assert lease.job.response_id == "resp_c"  # that node had no file to remember resp_a by
    await broker.aclose()
