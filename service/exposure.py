"""A gateway that others can reach asks for keys, or its operator has said that it should not."""

import ipaddress

from contracts.errors import BadSettings
from service.key_source import open_keys
from service.settings import PREFIX, ServiceSettings

LOOPBACK_NAME = "localhost"


def check_exposure(host: str, settings: ServiceSettings) -> None:
    """Call it before anything is bound or loaded. Raises ``BadSettings``, also if the keys cannot be read."""
    if open_keys(settings) is None and not settings.allow_anonymous and not is_loopback(host):
        raise BadSettings(
            f"--host {host or repr(host)} can be reached from other machines, and nobody would be asked for a key; "
            f"make one with 'ilvr keys new' and name its file in {PREFIX}API_KEYS_FILE, or set "
            f"{PREFIX}ALLOW_ANONYMOUS=true to serve all who can connect"
        )


def is_loopback(host: str) -> bool:
    """Of a host to bind. Any other name than ``localhost`` may mean any address, and so may an odd notation."""
    name = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower() == LOOPBACK_NAME
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
