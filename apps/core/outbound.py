"""The guard on everything this server connects to: public addresses over TLS, or what OUTBOUND_ALLOW names.

The clients that keep to it are in ``outbound_httpx``, ``outbound_async`` and ``outbound_aiohttp``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

import certifi
from django.conf import settings

from apps.core.addresses import IpNetwork, is_allowed_private, is_odd_number, is_public, literal_address
from apps.core.errors import UpstreamError

MAX_REDIRECTS = 5
MAX_ADDRESSES_TRIED = 4
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0

_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}(%[a-z0-9]{1,16})?", re.IGNORECASE | re.ASCII)


class OutboundRefused(UpstreamError):
    """An address that this server does not connect to. Reaches callers as ``upstream_error``."""

    default_message = "The outside source named an address that this server does not connect to."


def check_address(text: str, *, plain_http: bool = False, allow: Iterable[IpNetwork] | None = None) -> None:
    """Raises OutboundRefused unless a connection to this IP address may be made."""
    address = ipaddress.ip_address(text)
    allow = settings.ENV.outbound_allow if allow is None else allow
    if not is_allowed_private(address, allow) and (plain_http or not is_public(address)):
        raise OutboundRefused


def check_url(url: str, *, allow: Iterable[IpNetwork] | None = None) -> None:
    """Raises OutboundRefused for what an address's text alone shows to be wrong. Never resolves a name.

    The guarded clients do this for every request and redirect by themselves, and check the address that is
    connected to besides; call this where somebody else makes the connection (a proxy).
    """
    allow = tuple(settings.ENV.outbound_allow if allow is None else allow)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise OutboundRefused from None
    if not host or not _HOST.fullmatch(host) or port == 0 or parts.username is not None or parts.password is not None:
        raise OutboundRefused
    if is_odd_number(host) or parts.scheme not in {"https", "http"} or (parts.scheme == "http" and not allow):
        raise OutboundRefused
    literal = literal_address(host)
    if literal is not None:
        check_address(literal, plain_http=parts.scheme == "http", allow=allow)


def resolves_only_to_allowed(host: str) -> bool:
    """Whether every address of a host is one that OUTBOUND_ALLOW names. Resolves, so it can wait for DNS."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
    return bool(addresses) and all(is_allowed_private(address, settings.ENV.outbound_allow) for address in addresses)


def make_tls_context(*, alpn: Iterable[str] = ("http/1.1",)) -> ssl.SSLContext:
    """Trusts the system's authorities (SSL_CERT_FILE, SSL_CERT_DIR) and certifi's. One for each client: httpcore
    changes the ALPN list of the context that it is given."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(list(alpn))
    context.load_verify_locations(certifi.where())
    return context
