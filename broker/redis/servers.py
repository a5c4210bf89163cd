"""Which server a command goes to: the one there is, or in a cluster the one that has the slot.

redis-py has a client for clusters too. Here every command is a script with keys of one slot, so a table of slots is
enough; and an error on one connection stays with the call that had it, where that client closes all of them.
"""

import asyncio
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, TimeoutError

from broker.redis.cancellation import heeding
from broker.redis.together import Together

MAX_CONNECTIONS = 64  # to a server, for calls; more wait for one of them
MAX_REDIRECTIONS = 5
Address = tuple[str, int]


class Servers(Protocol):
    async def execute(self, key: str, *command: Any, alone: bool = False) -> Any:
        """A command whose keys lie in the slot of this one. ``alone``: it or its answer may be large."""
        ...

    async def any_client(self) -> Any:
        """For pub/sub, where a message reaches every server."""
        ...

    async def aclose(self) -> None: ...


def open_servers(url: str, *, is_cluster: bool, wait_s: float, **options: Any) -> Servers:
    return Cluster(url, wait_s, options) if is_cluster else OneServer(url, wait_s, options)


class OneServer:
    def __init__(self, url: str, wait_s: float, options: dict[str, Any]) -> None:
        self._server = _server(url, wait_s, options)

    async def execute(self, key: str, *command: Any, alone: bool = False) -> Any:
        return await (self._server.execute_alone if alone else self._server.execute)(*command)

    async def any_client(self) -> Any:
        return self._server.client

    async def aclose(self) -> None:
        await self._server.aclose()


class Cluster:
    """Learns from any node it can reach which one has which slot, and again whenever one of them cannot be reached."""

    def __init__(self, url: str, wait_s: float, options: dict[str, Any]) -> None:
        self._url = url
        self._wait_s = wait_s
        self._options = options
        seed = _server(url, wait_s, options)
        login = seed.client.connection_pool.connection_kwargs
        self._seed: Address = (login.get("host", "localhost"), int(login.get("port", 6379)))
        self._servers: dict[Address, Together] = {self._seed: seed}
        self._address_of: dict[int, Address] = {}
        self._learning = asyncio.Lock()

    async def execute(self, key: str, *command: Any, alone: bool = False) -> Any:
        slot = key_slot(key.encode())
        if slot not in self._address_of:
            await self._learn(slot)
        address = self._address_of[slot]
        for _ in range(MAX_REDIRECTIONS):
            server = self._server_of(address)
            try:
                return await (server.execute_alone if alone else server.execute)(*command)
            except MovedError as moved:
                address = self._address_of[slot] = (moved.host or address[0], moved.port)
            except AskError as asked:  # the slot is moving there just now
                return await self._ask((asked.host or address[0], asked.port), command)
            except (ConnectionError, TimeoutError, OSError):
                self._address_of.clear()
                raise
        raise ClusterDownError("MOVED too often")

    async def any_client(self) -> Any:
        if not self._address_of:
            await self._learn(0)
        return self._server_of(next(iter(self._address_of.values()))).client

    async def aclose(self) -> None:
        for server in self._servers.values():
            await server.aclose()

    async def _ask(self, address: Address, command: tuple[Any, ...]) -> Any:
        async with self._server_of(address).client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*command)
            _, answer = await heeding(pipe.execute())
            return answer

    async def _learn(self, wanted: int) -> None:
        """Raises ``ClusterDownError`` or ``ConnectionError``: no node says who has this slot."""
        async with self._learning:
            if wanted in self._address_of:
                return
            failure: Exception = ClusterDownError("no node of the cluster knows who has a slot")
            for address in tuple(self._servers):
                try:
                    ranges = await self._server_of(address).execute_alone("CLUSTER", "SLOTS")
                except (ConnectionError, TimeoutError, OSError) as error:
                    failure = error
                    continue
                for first, last, (host, port, *_), *_ in ranges:
                    owner = (host.decode() if host else address[0], int(port))
                    self._address_of.update(dict.fromkeys(range(first, last + 1), owner))
                if wanted in self._address_of:
                    return
            raise failure

    def _server_of(self, address: Address) -> Together:
        server = self._servers.get(address)
        if server is None:
            options = {**self._options, "host": address[0], "port": address[1]}
            server = self._servers[address] = _server(self._url, self._wait_s, options, is_elsewhere=True)
        return server


def _server(url: str, wait_s: float, options: dict[str, Any], *, is_elsewhere: bool = False) -> Together:
    pool = BlockingConnectionPool.from_url(url, max_connections=MAX_CONNECTIONS, timeout=wait_s, **options)
    if is_elsewhere:  # with the login of the URL
        pool.connection_kwargs |= {"host": options["host"], "port": options["port"]}
    return Together(Redis(connection_pool=pool))
