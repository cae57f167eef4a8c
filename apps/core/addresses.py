"""Which IP addresses are public. Standard library only, so that a bare child process can use it too."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_MAYBE_IPV4 = re.compile(r"[0-9a-fx.]+", re.IGNORECASE | re.ASCII)
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE | re.ASCII)


def is_public(address: IpAddress) -> bool:
    """Whether an address lies on the public internet, also when it wraps an IPv4 address (mapped, 6to4, NAT64)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.teredo is not None or address.is_site_local or address in _V4_COMPATIBLE:
            return False
        wrapped = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def is_allowed_private(address: IpAddress, allow: Iterable[IpNetwork]) -> bool:
    """Whether the operator lets this very address through, public or not."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in allow if network.version == address.version)


def literal_address(host: str) -> str | None:
    """The IP address that a host *is*, in any spelling a resolver takes (2130706433, 0x7f.1); None for a name."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        if not _MAYBE_IPV4.fullmatch(host):
            return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def is_odd_number(host: str) -> bool:
    """Whether a host ends in a number, so that it is no name, and is not an IPv4 address as people write it either:
    256.256.256.256, 0x7f.1, 1.2.3. Programs differ in what they make of those (WHATWG URL: "ends in a number").
    """
    if not _ENDS_IN_NUMBER.fullmatch(host) or ":" in host:
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False
