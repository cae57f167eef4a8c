"""The guard on everything this server connects to: public addresses over TLS, or what OUTBOUND_ALLOW names."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import certifi
import httpcore
import httpx
from django.conf import settings

from apps.core.addresses import IpNetwork, is_allowed_private, is_public, literal_address
from apps.core.errors import UpstreamError

MAX_REDIRECTS = 5
MAX_ADDRESSES_TRIED = 4
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
READ_BUFFER_BYTES = 256 * 1024

TIMEOUT = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30.0)
STREAM_TIMEOUT = aiohttp.ClientTimeout(
    total=None, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
)


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
    if parts.scheme not in {"https", "http"} or (parts.scheme == "http" and not allow):
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


class _CheckedBackend(httpcore.NetworkBackend):
    """Resolves by itself and connects to the very address that was checked: a second DNS answer has no effect."""

    def __init__(self, *, plain_http: bool) -> None:
        self._plain_http = plain_http
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._resolve(host, port):
            check_address(address, plain_http=self._plain_http)
            try:
                return self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    @staticmethod
    def _resolve(host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MAX_ADDRESSES_TRIED]

    def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore.NetworkStream:
        raise OutboundRefused


class _GuardedTransport(httpx.BaseTransport):
    """One connection pool for each scheme, because plain HTTP may go to fewer addresses."""

    def __init__(self, *, limits: httpx.Limits, http2: bool, retries: int) -> None:
        self._pools: dict[str, httpx.HTTPTransport] = {}
        tls = make_tls_context()
        for scheme in ("https", "http"):
            pool = httpx.HTTPTransport(verify=tls, http2=http2, limits=limits, trust_env=False)
            pool._pool = httpcore.ConnectionPool(
                ssl_context=tls,
                max_connections=limits.max_connections,
                max_keepalive_connections=limits.max_keepalive_connections,
                keepalive_expiry=limits.keepalive_expiry,
                http2=http2,
                retries=retries,
                network_backend=_CheckedBackend(plain_http=scheme == "http"),
            )
            self._pools[scheme] = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        check_url(str(request.url))
        return self._pools[request.url.scheme].handle_request(request)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


def guarded_httpx_client(
    *,
    limits: httpx.Limits = LIMITS,
    http2: bool = True,
    retries: int = 0,
    timeout: httpx.Timeout = TIMEOUT,
    follow_redirects: bool = False,
    **options: Any,
) -> httpx.Client:
    """An httpx.Client that only connects where it may; raises OutboundRefused else. Other options are httpx's own.

    Ignores proxy settings of the environment. Thread-safe; the caller closes it.
    """
    return httpx.Client(
        transport=_GuardedTransport(limits=limits, http2=http2, retries=retries),
        timeout=timeout,
        follow_redirects=follow_redirects,
        max_redirects=MAX_REDIRECTS,
        trust_env=False,
        **options,
    )


_connecting: ContextVar[str] = ContextVar("outbound_connecting", default="https")
"""How the request being sent in this task connects: https, http, or proxy."""


async def _check_request(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    check_url(str(request.url))
    token = _connecting.set("proxy" if request.proxy is not None else request.url.scheme)
    try:
        return await send(request)
    finally:
        _connecting.reset(token)


def _checked_socket(address_info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _name, address = address_info
    how = _connecting.get()
    if how != "proxy":  # a proxy is the operator's own choice
        check_address(address[0], plain_http=how == "http")
    return socket.socket(family=family, type=kind, proto=protocol)


async def _count_redirect(_session: Any, context: Any, _params: Any) -> None:
    context.redirects = getattr(context, "redirects", 0) + 1
    if context.redirects > MAX_REDIRECTS:
        raise OutboundRefused("The outside source redirects in circles.")


def guarded_aiohttp_session(
    *,
    limit: int = 1000,
    limit_per_host: int = 0,
    keepalive_timeout_s: float = 30.0,
    timeout: aiohttp.ClientTimeout = STREAM_TIMEOUT,
    connector: aiohttp.BaseConnector | None = None,
    **options: Any,
) -> aiohttp.ClientSession:
    """An aiohttp session that only connects where it may; raises OutboundRefused else. Other options are aiohttp's own.

    Make it inside the event loop that uses it. A request may name a ``proxy`` (not checked itself; the target's text
    is) and ``ssl=False``. Every redirect is checked, at most 5 are followed. A ``connector`` of one's own has to check
    by itself which addresses it connects to (``apps.core.socks``).
    """
    redirects = aiohttp.TraceConfig()
    redirects.on_request_redirect.append(_count_redirect)
    connector = connector or aiohttp.TCPConnector(
        limit=limit,
        limit_per_host=limit_per_host,
        keepalive_timeout=keepalive_timeout_s,
        ssl=make_tls_context(),
        socket_factory=_checked_socket,
        happy_eyeballs_delay=None,  # with it, aiohttp swallows errors that are not OSError
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        middlewares=(_check_request,),
        trace_configs=[redirects],
        read_bufsize=READ_BUFFER_BYTES,
        trust_env=False,
        **options,
    )
