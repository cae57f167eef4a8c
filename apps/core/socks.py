"""Requests through a SOCKS proxy, which aiohttp itself does not speak."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

from apps.core.outbound import make_tls_context
from apps.core.outbound_aiohttp import STREAM_TIMEOUT, guarded_aiohttp_session

SOCKS_ERRORS = (ProxyConnectionError, ProxyError, ProxyTimeoutError)
"""What a request through such a session raises beside aiohttp's own errors: the proxy is to blame."""


def guarded_socks_session(
    proxy: str, *, timeout: aiohttp.ClientTimeout = STREAM_TIMEOUT, **options: Any
) -> aiohttp.ClientSession:
    """An aiohttp session whose every connection goes through ``proxy`` (socks4, socks4a, socks5, socks5h).

    The proxy is the operator's own choice, so its address is not checked; it also resolves the names. The text of
    every target is checked, as with a proxy of ``guarded_aiohttp_session``. Make it inside the event loop that uses it.
    """
    scheme, rest = proxy.split("://", 1)
    connector = ProxyConnector.from_url(
        f"{scheme.rstrip('ah')}://{rest}", rdns=True, limit=1000, ssl=make_tls_context(), happy_eyeballs_delay=None
    )
    return guarded_aiohttp_session(timeout=timeout, connector=connector, **options)
