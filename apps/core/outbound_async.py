"""The outbound guard's httpx client for an event loop: its calls end at once when they are cancelled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from apps.core.outbound import (
    MAX_ADDRESSES_TRIED,
    MAX_REDIRECTS,
    OutboundRefused,
    check_address,
    check_url,
    make_tls_context,
)
from apps.core.outbound_httpx import LIMITS, TIMEOUT


class _CheckedBackend(httpcore.AnyIOBackend):
    """Resolves by itself and connects to the very address that was checked: a second DNS answer has no effect."""

    def __init__(self, *, plain_http: bool) -> None:
        self._plain_http = plain_http

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in await _resolve(host, port):
            check_address(address, plain_http=self._plain_http)
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise OutboundRefused


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MAX_ADDRESSES_TRIED]


class _GuardedTransport(httpx.AsyncBaseTransport):
    """One connection pool for each scheme, because plain HTTP may go to fewer addresses."""

    def __init__(self, *, limits: httpx.Limits, http2: bool) -> None:
        self._pools: dict[str, httpx.AsyncHTTPTransport] = {}
        tls = make_tls_context()
        for scheme in ("https", "http"):
            pool = httpx.AsyncHTTPTransport(verify=tls, http2=http2, limits=limits, trust_env=False)
            pool._pool = httpcore.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=limits.max_connections,
                max_keepalive_connections=limits.max_keepalive_connections,
                keepalive_expiry=limits.keepalive_expiry,
                http2=http2,
                network_backend=_CheckedBackend(plain_http=scheme == "http"),
            )
            self._pools[scheme] = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        check_url(str(request.url))
        return await self._pools[request.url.scheme].handle_async_request(request)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


def guarded_async_httpx_client(
    *,
    limits: httpx.Limits = LIMITS,
    http2: bool = True,
    timeout: httpx.Timeout = TIMEOUT,
    follow_redirects: bool = False,
    **options: Any,
) -> httpx.AsyncClient:
    """As ``guarded_httpx_client``, for one event loop. The caller closes it there."""
    return httpx.AsyncClient(
        transport=_GuardedTransport(limits=limits, http2=http2),
        timeout=timeout,
        follow_redirects=follow_redirects,
        max_redirects=MAX_REDIRECTS,
        trust_env=False,
        **options,
    )
