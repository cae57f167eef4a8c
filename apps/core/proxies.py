"""Who really calls when a reverse proxy stands in between. The one place where forwarded headers are believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from apps.core.addresses import IpAddress, IpNetwork, is_allowed_private
from apps.core.asgi import Scope

MAX_HOPS = 10
_SECURE = {"http": "https", "ws": "wss"}


def see_through_proxies(scope: Scope, trusted: Sequence[IpNetwork]) -> None:
    """Put the caller's own address, and https when it used that, into the ``scope`` of a request or websocket.

    Changes nothing unless the connection itself comes from a trusted network. X-Forwarded-For is read from its end,
    which the nearest proxy wrote, up to the first address that is not a trusted proxy's: what stands before it may be
    made up by the caller.
    """
    peer = scope.get("client")
    if not trusted or not peer or not _is_trusted(_address(peer[0]), trusted):
        return
    client = peer[0]
    for text in reversed(_values(scope, b"x-forwarded-for")[-MAX_HOPS:]):
        address = _address(text)
        if address is None:
            break
        client = str(address)
        if not _is_trusted(address, trusted):
            break
    if client != peer[0]:
        scope["client"] = (client, 0)
    if _values(scope, b"x-forwarded-proto")[-1:] == ["https"]:
        scope["scheme"] = _SECURE.get(scope["scheme"], scope["scheme"])


def _values(scope: Scope, name: bytes) -> list[str]:
    """The members of a comma-separated header that may be given several times."""
    given = b",".join(value for key, value in scope["headers"] if key == name)
    return [text for each in given.decode("latin-1").split(",") if (text := each.strip())]


def _address(text: str) -> IpAddress | None:
    """An address in the forms that proxies write: with or without a port, IPv6 with or without brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_trusted(address: IpAddress | None, trusted: Sequence[IpNetwork]) -> bool:
    return address is not None and is_allowed_private(address, trusted)
