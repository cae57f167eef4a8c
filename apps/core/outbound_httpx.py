"""The outbound guard's httpx client for threads."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from apps.core.outbound import (
    CONNECT_TIMEOUT_S,
    MAX_ADDRESSES_TRIED,
    MAX_REDIRECTS,
    READ_TIMEOUT_S,
    OutboundRefused,
    check_address,
    check_url,
    make_tls_context,
)

TIMEOUT = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30.0)


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
