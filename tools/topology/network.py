"""The networks of the compose file: a bridge each, an address for each container on each of its networks, and a name
server that answers as Docker's does.

All of it lives in a network namespace of its own, from which no other machine can be reached.
"""

import socket
import struct
import subprocess
import threading
from ipaddress import IPv4Address, IPv4Network

from tools.topology.composed import Container

# Addresses that are nobody's (RFC 5737), a quarter for each network.
RANGE = IPv4Network("192.0.2.0/24")
PREFIX_LENGTH = 26
DNS_PORT = 53
A_RECORD, IN_CLASS, TTL_S = 1, 1, 1
RESPONSE, NO_SUCH_NAME = 0x8580, 0x8583


def ip(*words: str) -> None:
    """Raises ``RuntimeError`` with what it says."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr}")


class Networks:
    """Made in the namespace of the caller, which has the first address of each and answers for names there."""

    def __init__(self, names: list[str]) -> None:
        self._ranges = dict(zip(names, RANGE.subnets(new_prefix=PREFIX_LENGTH), strict=False))
        self._addresses: dict[str, dict[str, IPv4Address]] = {}  # of each container by network
        self._services: dict[str, str] = {}
        self._lock = threading.Lock()  # of both, which a thread for each network reads
        ip("link", "set", "lo", "up")
        for name, addresses in self._ranges.items():
            ip("link", "add", f"br-{name}", "type", "bridge")
            ip("addr", "add", f"{addresses[1]}/{PREFIX_LENGTH}", "dev", f"br-{name}")
            ip("link", "set", f"br-{name}", "up")

    def join(self, container: Container, pid: int) -> None:
        """Give the network namespace of a process its interfaces."""
        number = len(self._addresses) + 2
        addresses = {name: self._ranges[name][number] for name in container.networks}
        with self._lock:
            self._services[container.name] = container.service
            self._addresses[container.name] = addresses
        inside = ["nsenter", "--target", str(pid), "--net", "ip"]
        subprocess.run([*inside, "link", "set", "lo", "up"], check=True)
        for index, (name, address) in enumerate(addresses.items()):
            outer = f"v{number}-{index}"
            ip("link", "add", outer, "type", "veth", "peer", "name", f"eth{index}", "netns", str(pid))
            ip("link", "set", outer, "master", f"br-{name}", "up")
            subprocess.run([*inside, "addr", "add", f"{address}/{PREFIX_LENGTH}", "dev", f"eth{index}"], check=True)
            subprocess.run([*inside, "link", "set", f"eth{index}", "up"], check=True)

    def leave(self, container: Container) -> None:
        """Its name has one address less. The interfaces go with its process."""
        with self._lock:
            self._addresses[container.name] = {}

    def address(self, container: Container) -> str:
        return str(next(iter(self._addresses[container.name].values())))

    def name_server(self, container: Container) -> str:
        return str(self._ranges[container.networks[0]][1])

    def serve_names(self) -> None:
        """A thread for each network, as long as this process lives."""
        for addresses in self._ranges.values():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((str(addresses[1]), DNS_PORT))
            threading.Thread(target=self._answer_all, args=(server,), daemon=True).start()

    def _answer_all(self, server: socket.socket) -> None:
        while True:
            query, asker = server.recvfrom(4096)
            server.sendto(self._answer(query, IPv4Address(asker[0])), asker)

    def _answer(self, query: bytes, asker: IPv4Address) -> bytes:
        """Addresses on networks that the asker is on; a name that is none of ours does not exist."""
        labels, end = [], 12
        while query[end]:
            labels.append(query[end + 1 : end + 1 + query[end]].decode())
            end += 1 + query[end]
        (kind,) = struct.unpack("!H", query[end + 1 : end + 3])
        question = query[12 : end + 5]
        found = self._shared(labels[0], asker) if len(labels) == 1 else None
        records = b"".join(
            struct.pack("!HHHLH4s", 0xC00C, A_RECORD, IN_CLASS, TTL_S, 4, address.packed)
            for address in (found if found and kind == A_RECORD else [])
        )
        flags = NO_SUCH_NAME if found is None else RESPONSE
        return query[:2] + struct.pack("!5H", flags, 1, len(records) // 16, 0, 0) + question + records

    def _shared(self, name: str, asker: IPv4Address) -> list[IPv4Address] | None:
        """None if there is no such container or service on a network of the asker."""
        with self._lock:
            its_networks = {network for own in self._addresses.values() if asker in own.values() for network in own}
            found = [
                address
                for container, own in self._addresses.items()
                if name in (container, self._services[container])
                for network, address in own.items()
                if network in its_networks
            ]
        return found or None
