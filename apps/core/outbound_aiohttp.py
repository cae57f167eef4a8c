"""The outbound guard's aiohttp session."""

from __future__ import annotations

import socket
import ssl
from contextvars import ContextVar
from functools import cache
from typing import Any

import aiohttp

from apps.core.outbound import (
    CONNECT_TIMEOUT_S,
    MAX_REDIRECTS,
    READ_TIMEOUT_S,
    OutboundRefused,
    check_address,
    check_url,
    make_tls_context,
)

READ_BUFFER_BYTES = 256 * 1024
STREAM_TIMEOUT = aiohttp.ClientTimeout(
    total=None, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
)

_connecting: ContextVar[str] = ContextVar("outbound_connecting", default="https")
"""How the request being sent in this task connects: https, http, or proxy."""


@cache
def _shared_tls_context(_authorities: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """Of all aiohttp sessions of this process, which leave it as it is: reading the authorities takes 50 ms, and each
    fetch has a session of its own."""
    return make_tls_context()


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
        ssl=_shared_tls_context(ssl.get_default_verify_paths()),
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
