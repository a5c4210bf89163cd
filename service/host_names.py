"""Names of hosts: one spelling of each, and whether it is on a list."""

import re
from collections.abc import Sequence

import idna

HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
WILDCARD = "*."


def ascii_host(host: str) -> str:
    """In lower case, without the dot at the end, names of other scripts as the DNS has them. Empty if it is no name."""
    host = host.removesuffix(".")
    if host.isascii():
        return host.lower()
    try:
        return idna.encode(host, uts46=True).decode("ascii").removesuffix(".")
    except idna.IDNAError:
        return ""


def is_allowed_host(host: str, allowed: Sequence[str]) -> bool:
    """Exactly, or as any name below the suffix of a ``*.suffix``. No address is a name, in whatever notation."""
    if not is_host_name(host):
        return False
    return any(host.endswith(name[1:]) if name.startswith(WILDCARD) else host == name for name in allowed)


def is_host_name(host: str) -> bool:
    """Two labels at least, and the last begins with a letter, so that no resolver takes it for an IPv4 address."""
    return HOST_NAME.fullmatch(host) is not None and host.rpartition(".")[2][0].isalpha()


def read_allowed_host(text: str) -> str:
    """An entry of the list as hosts are compared with it. Raises ``ValueError``."""
    host = ascii_host(text.removeprefix(WILDCARD))
    if not is_host_name(host):
        raise ValueError(f"{text!r} is no host name like images.example.com or *.example.com")
    return WILDCARD + host if text.startswith(WILDCARD) else host
