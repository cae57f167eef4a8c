"""uvicorn's HTTP protocol with the limits that it lacks: how large a request's head is, and how slowly it comes.

It also lets an application send a whole answer in one write, without passing header by header through ``send``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast
from weakref import ref

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from apps.core.asgi import Scope

EXCHANGE = "ytserver.exchange"  # in the scope: what ``send_whole`` needs
HEAD_MAX_BYTES = 32 * 1024  # request line and headers
HEAD_TIMEOUT_S = 15.0
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 25\r\nconnection: close\r\n\r\n"
    b"The headers are too large"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections that send a head larger than HEAD_MAX_BYTES, or take longer than HEAD_TIMEOUT_S over it.

    Bytes that begin no request (blank lines, the rest of a body that was answered before its end) count as a head:
    they switch uvicorn's keep-alive timer off, and a connection could be held for ever with them.
    """

    _head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is None and (self._in_head or self._is_answered) and not self.transport.is_closing():
            self._start_timer()
        if self._in_head and self._head_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()

    @property
    def _is_answered(self) -> bool:
        if self.transport.get_protocol() is not self:  # it is a websocket's connection now
            return False
        return bool(self.cycle.response_complete) and self.timeout_keep_alive_task is None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True  # the timer starts when it does not end in the same piece

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:  # else it becomes a websocket
            cast("Scope", self.scope)[EXCHANGE] = ref(self.cycle)  # weak: it has the scope, and cycles wait for the GC

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they go over the wire. Nothing in them may come from outside: they are sent as they are."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def send_whole(scope: Scope, status: int, lines: bytes, body: bytes | memoryview) -> bool:
    """Send an answer whose ``lines`` (``header_lines``) have its Content-Length. Never waits; a view is not copied.

    False: nothing was sent, and ``send`` has to be used: under another server, for HEAD, to a client that is slow or
    has gone, and when the connection is to be closed.
    """
    exchange: ref[RequestResponseCycle] | None = scope.get(EXCHANGE)
    cycle = exchange() if exchange is not None else None
    if (
        cycle is None
        or cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive
        or scope["method"] == "HEAD"
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    head = b"".join((STATUS_LINE[status], header_lines(cycle.default_headers), lines, b"\r\n"))
    if isinstance(body, bytes):
        cycle.transport.write(head + body)
    else:
        cycle.transport.writelines((head, body))
    cycle.message_event.set()
    cycle.on_response()
    return True
