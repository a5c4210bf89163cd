"""Which addresses the gateway may fetch from: those of the public internet, and nothing that could be nearer.

After the IANA registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890). Of IPv6 only what is allocated for
the public at all (2000::/3) counts, without the ranges in it that carry an IPv4 address: those mapped, of NAT64 and
of 6to4 could mean any neighbour.
"""

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NOT_PUBLIC_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network; 0.0.0.0 connects to this machine
            "10.0.0.0/8",
            "100.64.0.0/10",  # behind a carrier's NAT; holds a cloud's metadata server (100.100.100.200)
            "127.0.0.0/8",
            "168.63.129.16/32",  # a public address by its number, and a cloud's metadata server by use
            "169.254.0.0/16",  # link-local; holds most clouds' metadata servers (169.254.169.254)
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments; holds a cloud's metadata server (192.0.0.192)
            "192.0.2.0/24",  # for documentation
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",  # for benchmarks
            "198.51.100.0/24",  # for documentation
            "203.0.113.0/24",  # for documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
NOT_PUBLIC_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments; holds Teredo, which carries an IPv4 address
            "2001:db8::/32",  # for documentation
            "2002::/16",  # 6to4, which carries an IPv4 address
            "3fff::/20",  # for documentation
        ),
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether it is somebody's on the internet, and not this machine, its neighbours or a cloud's own services."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    if address.scope_id is not None or address not in PUBLIC_V6:
        return False
    return not any(address in network for network in NOT_PUBLIC_V6)
