"""Which addresses may be connected to: public ones, checked when a connection is made.

A name is resolved once for a connection, every address it has is checked, and one of these very
addresses is connected to: a name that resolves to another address a moment later gains nothing.
"""

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

# Prefixes whose addresses carry one of version 4: well-known NAT64, and the deprecated
# IPv4-compatible. That for local NAT64 (64:ff9b:1::/48) is not global.
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_SITE_LOCAL = IPv6Network("fec0::/10")


class ForbiddenAddressError(Exception):
    """The address is not one that a webhook may be sent to."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, whatever it is wrapped in."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    for inner in _inside(address):
        if not is_public(inner):
            return False
    if address in _LOCAL_NAT64 or address in _SITE_LOCAL or address.scope_id:
        return False
    if address.ipv4_mapped is not None or address in _NAT64:
        return True  # what is inside is
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inside(address: IPv6Address) -> list[IPv4Address]:
    """The addresses of version 4 that one of version 6 carries."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address in _COMPATIBLE:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [inner for inner in found if inner is not None]


def literal(host: str) -> Address | None:
    """The address that a host is, if it is no name."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def resolve(host: str, port: int, private_hosts: Collection[str] = ()) -> list[str]:
    """The addresses of ``host``, all of them checked.

    Args:
        private_hosts: Names that may have any address.

    Raises:
        ForbiddenAddressError: One of them is not public.
        OSError: The name does not resolve.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if host.lower() not in private_hosts:
        for address in addresses:
            if not is_public(ip_address(address)):
                raise ForbiddenAddressError(f"{host} has the address {address}, not a public one")
    return addresses
