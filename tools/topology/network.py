"""The networks of the compose file: a bridge each, and an address for each container on each of its networks.

All of it lives in a network namespace of its own, from which no other machine can be reached.
"""

import subprocess
from ipaddress import IPv4Network

from tools.topology.composed import Container
from tools.topology.names import Names

# Addresses that are nobody's (RFC 5737), a quarter for each network.
RANGE = IPv4Network("192.0.2.0/24")
PREFIX_LENGTH = 26


def ip(*words: str, pid: int | None = None) -> None:
    """In the network namespace of a process, if there is one. Raises ``RuntimeError`` with what it says."""
    inside = [] if pid is None else ["nsenter", "--target", str(pid), "--net"]
    done = subprocess.run([*inside, "ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr}")


class Networks:
    """Made in the namespace of the caller, which has the first address of each and answers for names there."""

    def __init__(self, names: list[str]) -> None:
        self._ranges = dict(zip(names, RANGE.subnets(new_prefix=PREFIX_LENGTH), strict=False))
        self._names = Names()
        self._num_joined = 0
        ip("link", "set", "lo", "up")
        for name, addresses in self._ranges.items():
            ip("link", "add", f"br-{name}", "type", "bridge")
            ip("addr", "add", f"{addresses[1]}/{PREFIX_LENGTH}", "dev", f"br-{name}")
            ip("link", "set", f"br-{name}", "up")
            self._names.serve(addresses[1])

    def join(self, container: Container, pid: int) -> None:
        """Give the network namespace of a process its interfaces."""
        self._num_joined += 1
        number = self._num_joined + 1
        addresses = {name: self._ranges[name][number] for name in container.networks}
        self._names.add(container.name, container.service, addresses)
        ip("link", "set", "lo", "up", pid=pid)
        for index, (name, address) in enumerate(addresses.items()):
            inner, outer = f"eth{index}", f"v{number}-{index}"
            ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", str(pid))
            ip("link", "set", outer, "master", f"br-{name}", "up")
            ip("addr", "add", f"{address}/{PREFIX_LENGTH}", "dev", inner, pid=pid)
            ip("link", "set", inner, "up", pid=pid)

    def leave(self, container: Container) -> None:
        """Its name has one address less. The interfaces go with its process."""
        self._names.remove(container.name)

    def address(self, container: Container) -> str:
        return str(self._names.address(container.name))

    def name_server(self, container: Container) -> str:
        return str(self._ranges[container.networks[0]][1])
