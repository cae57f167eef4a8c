"""uvicorn's HTTP protocol with the limits that it lacks: how large a request's head is, and how slowly it comes.

It also lets an application send a whole answer in one write, without passing header by header through ``send``, and
begin on a request before it gets a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import cast
from weakref import ref

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from apps.core.asgi import Scope

logger = logging.getLogger(__name__)

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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Without a task when the application has a ``begin`` that takes the request (``Entrance.begin``)."""
        scope = cast("Scope", cycle.scope)
        scope[EXCHANGE] = ref(cycle)  # weak: it has the scope, and cycles wait for the GC
        usual_way = partial(super()._start_asgi_task, cycle, app)
        if self.flow.write_paused or not self._has_begun(app, scope, usual_way):
            usual_way()

    def _has_begun(self, app: ASGI3Application, scope: Scope, usual_way: Callable[[], None]) -> bool:
        begin = getattr(app, "begin", None)
        try:
            return begin is not None and begin(scope, usual_way)
        except Exception:
            logger.exception("a request that had begun goes the usual way")  # where a fault has its answer
            return False

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
    has gone.
    """
    exchange: ref[RequestResponseCycle] | None = scope.get(EXCHANGE)
    cycle = exchange() if exchange is not None else None
    if (
        cycle is None
        or cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or scope["method"] == "HEAD"
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    head = b"".join((STATUS_LINE[status], header_lines(cycle.default_headers), lines, end))
    if isinstance(body, bytes):
        cycle.transport.write(head + body)
    else:
        cycle.transport.writelines((head, body))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
