"""Connections to the very addresses that were looked at: a name that changes its answer in between changes nothing."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpcore

from contracts.errors import UrlNotAllowed
from service.addresses import IPAddress, is_public

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Connect = Callable[[str, int, float | None], Awaitable[httpcore.AsyncNetworkStream]]


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name once for each connection, and connects only if all of its addresses are public.

    TLS is started above it with the name, so a certificate is checked against the name, not the address.
    """

    def __init__(self, resolve: Resolve, connect: Connect) -> None:
        self._resolve = resolve
        self._connect = connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's name)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises ``UrlNotAllowed``, ``httpcore.ConnectError``, ``httpcore.ConnectTimeout``."""
        addresses = await self._addresses(host, port)
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in addresses:
            try:
                return await self._connect(str(address), port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[IPAddress]:
        """One that is not public spoils all, whichever would be tried. The message does not say which it is."""
        try:
            addresses = [ipaddress.ip_address(text) for text in await self._resolve(host, port)]
        except (OSError, ValueError):
            raise httpcore.ConnectError("the name cannot be resolved") from None
        if not all(map(is_public, addresses)):
            raise UrlNotAllowed("the host has an address that is not public.")
        return addresses


async def resolve(host: str, port: int) -> list[str]:
    """By the system. The dot at the end keeps search domains out: the name means itself. Raises ``OSError``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(f"{host}.", port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(address: str, port: int, timeout_s: float | None) -> httpcore.AsyncNetworkStream:
    """To an address, never to a name."""
    return await httpcore.AnyIOBackend().connect_tcp(str(ipaddress.ip_address(address)), port, timeout=timeout_s)
