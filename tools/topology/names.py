"""The name server of the networks: a service's name has an address for each of its containers, as Docker's has."""

import socket
import struct
import threading
from ipaddress import IPv4Address

DNS_PORT = 53
A_RECORD, IN_CLASS, TTL_S = 1, 1, 1
RESPONSE, NO_SUCH_NAME = 0x8580, 0x8583
HEADER_BYTES, RECORD_BYTES = 12, 16
NAME_OF_THE_QUESTION = 0xC00C


class Names:
    """Answers with addresses on networks that the asker is on; another name does not exist."""

    def __init__(self) -> None:
        self._addresses: dict[str, dict[str, IPv4Address]] = {}  # of each container by network
        self._services: dict[str, str] = {}
        self._lock = threading.Lock()  # of both: a thread for each network reads them

    def add(self, container: str, service: str, addresses: dict[str, IPv4Address]) -> None:
        with self._lock:
            self._services[container] = service
            self._addresses[container] = addresses

    def remove(self, container: str) -> None:
        with self._lock:
            self._addresses[container] = {}

    def address(self, container: str) -> IPv4Address:
        """Its first."""
        return next(iter(self._addresses[container].values()))

    def find(self, name: str, asker: IPv4Address) -> list[IPv4Address]:
        with self._lock:
            its_networks = {network for own in self._addresses.values() if asker in own.values() for network in own}
            return [
                address
                for container, own in self._addresses.items()
                if name in (container, self._services[container])
                for network, address in own.items()
                if network in its_networks
            ]

    def serve(self, address: IPv4Address) -> None:
        """By a thread that lives as long as this process."""
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((str(address), DNS_PORT))
        threading.Thread(target=self._answer_all, args=(server,), daemon=True).start()

    def _answer_all(self, server: socket.socket) -> None:
        while True:
            query, asker = server.recvfrom(4096)
            server.sendto(self.answer(query, IPv4Address(asker[0])), asker)

    def answer(self, query: bytes, asker: IPv4Address) -> bytes:
        """A response to a query of one question (RFC 1035, 4.1). Of other kinds than A there are no records."""
        labels, end = [], HEADER_BYTES
        while length := query[end]:
            labels.append(query[end + 1 : end + 1 + length].decode())
            end += 1 + length
        (kind,) = struct.unpack("!H", query[end + 1 : end + 3])
        found = self.find(".".join(labels), asker)
        records = b"".join(
            struct.pack("!HHHLH4s", NAME_OF_THE_QUESTION, A_RECORD, IN_CLASS, TTL_S, len(one.packed), one.packed)
            for one in (found if kind == A_RECORD else [])
        )
        flags = RESPONSE if found else NO_SUCH_NAME
        header = query[:2] + struct.pack("!5H", flags, 1, len(records) // RECORD_BYTES, 0, 0)
        return header + query[HEADER_BYTES : end + 5] + records
