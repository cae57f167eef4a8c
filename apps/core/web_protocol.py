"""uvicorn's HTTP protocol with what it lacks: bounds on the size and slowness of a request's head, and one Host.

What follows a chunked body (trailers) is no header here: a caller could say with it what only a proxy may say.

It also lets an application send a whole answer in one write, without passing header by header through ``send``, begin
on a request before it gets a task of its own, or take the connection over for the time of one answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol, cast
from weakref import ref

from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from apps.core.asgi import Scope

logger = logging.getLogger(__name__)

EXCHANGE = "ytserver.exchange"  # in the scope: what ``send_whole`` needs
HEAD_MAX_BYTES = 32 * 1024  # request line and headers; what stands around the pieces of a body, and after it
HEAD_TIMEOUT_S = 15.0
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 25\r\nconnection: close\r\n\r\n"
    b"The headers are too large"
)
MAX_PIPELINED = 200  # requests that wait for their turn on one connection; each takes more memory than bytes to send
CLIENT_STALL_S = 900.0  # a client that takes nothing of an answer's end for so long, or twice that, is cut off
_NOBODY_WAITS = asyncio.Event()  # in place of one for each answer that was taken over


class Sender(Protocol):
    """Whoever sends an answer himself: see ``take_over``."""

    def can_write(self) -> None:
        """What was written has left. Must not raise."""
        ...

    def client_left(self) -> None:
        """The connection is over; at most once, and not after ``Wire.end``."""
        ...


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections that send a head larger than HEAD_MAX_BYTES, or take longer than HEAD_TIMEOUT_S over it.

    Bytes that begin no request (blank lines, the rest of a body that was answered before its end) count as a head:
    they switch uvicorn's keep-alive timer off, and a connection could be held for ever with them.
    """

    _head_bytes = 0  # of the head, then of what comes with the body and is none of it
    _body_bytes = 0  # of the body, in the piece that is being read
    _in_head = True
    _head_has_ended = False  # in the piece that is being read
    _head_timer: asyncio.TimerHandle | None = None
    _served: RequestResponseCycle | None = None  # whose turn it is; ``cycle`` is that of the newest request
    _leaving: asyncio.TimerHandle | None = None  # looks whether the end of an answer leaves
    sender: Sender | None = None  # of the answer that is being sent, when it was taken over

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._leaving is not None:
            self._leaving.cancel()
        super().connection_lost(exc)
        served, self._served = self._served, None
        if served is not None and not served.response_complete:  # others may have come after it
            served.disconnected = True
            served.message_event.set()
        sender, self.sender = self.sender, None
        if sender is not None:
            sender.client_left()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.sender is not None:
            self.sender.can_write()

    def data_received(self, data: bytes) -> None:
        self._body_bytes, self._head_has_ended = 0, False
        super().data_received(data)
        self._head_bytes = 0 if self._head_has_ended else self._head_bytes + len(data) - self._body_bytes
        if self._head_timer is None and (self._in_head or self._is_answered) and not self.transport.is_closing():
            self._start_timer()
        if self._head_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            if self._in_head and not self._is_answer_due:
                self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()

    @property
    def _is_answered(self) -> bool:
        if self.transport.get_protocol() is not self or self.cycle is None:  # it is a websocket's connection now
            return False  # or its first request was none
        return bool(self.cycle.response_complete) and self.timeout_keep_alive_task is None

    @property
    def _is_answer_due(self) -> bool:
        """Whether what is written now would come into an answer, or before one to an earlier request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return bool(self.pipeline) or cycle.response_started or not cycle.more_body

    def send_400_response(self, msg: str) -> None:
        if self._is_answer_due:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        if self._is_answer_due:
            self.transport.close()
        else:
            super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._leaving is None and self.transport.get_write_buffer_size():
            self._look_whether_it_leaves()

    def _look_whether_it_leaves(self, left_before: int = 0) -> None:
        """No task waits for the end of an answer: a client could hold it, and the connection, for ever."""
        left = self.transport.get_write_buffer_size()
        if left and left == left_before and self.cycle.response_complete:
            self.transport.abort()
            return
        self._leaving = self.loop.call_later(CLIENT_STALL_S, self._look_whether_it_leaves, left) if left else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0  # the timer starts when it does not end in the same piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_has_ended = True
        self._stop_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")  # ends the connection
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise ValueError("Host is missing, or there twice")  # RFC 9112 3.2: 400
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Without a task when the application has a ``begin`` that takes the request (``Entrance.begin``)."""
        self._served = cycle
        scope = cast("Scope", cycle.scope)
        scope[EXCHANGE] = ref(cycle)  # weak: it has the scope, and cycles wait for the GC
        usual_way = partial(super()._start_asgi_task, cycle, app)
        if self.flow.write_paused or not self._has_begun(app, scope, usual_way):
            usual_way()

    def _has_begun(self, app: ASGI3Application, scope: Scope, usual_way: Callable[[], None]) -> bool:
        begin = getattr(app, "begin", None)
        try:
            return begin is not None and begin(scope, usual_way)
        except Exception:  # the usual way is where a fault has its answer
            logger.exception("a request that had begun goes the usual way")
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


class _DefaultLines:
    """``header_lines`` of uvicorn's own headers, a list that it makes anew each second."""

    def __init__(self) -> None:
        self._made_of: list[tuple[bytes, bytes]] | None = None
        self._lines = b""

    def of(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        if headers is not self._made_of:
            self._made_of, self._lines = headers, header_lines(headers)
        return self._lines


_default_lines = _DefaultLines()


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
    head = b"".join((STATUS_LINE[status], _default_lines.of(cycle.default_headers), lines, end))
    if isinstance(body, bytes):
        cycle.transport.write(head + body)
    else:
        cycle.transport.writelines((head, body))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class Wire:
    """A connection whose answer is sent by one Sender, past uvicorn's ``send`` and without a task that waits."""

    __slots__ = ("_cycle", "_protocol", "fileno")

    def __init__(self, cycle: RequestResponseCycle, protocol: BoundedHttpProtocol) -> None:
        self._cycle = cycle
        self._protocol = protocol
        self.fileno: int = protocol.transport.get_extra_info("socket").fileno()

    def write(self, *data: bytes | memoryview) -> bool:
        """Never waits. Whether all has left; if not, ``can_write`` comes, and nothing may be sent by hand before."""
        transport = self._protocol.transport
        transport.writelines(data)
        return transport.get_write_buffer_size() == 0

    def head(self, status: int, lines: bytes) -> bytes:
        """What comes before the body. ``lines`` (``header_lines``) have its Content-Length."""
        close = b"" if self._cycle.keep_alive else b"connection: close\r\n"
        return b"".join((STATUS_LINE[status], _default_lines.of(self._cycle.default_headers), lines, close, b"\r\n"))

    def widen(self, buffer_bytes: int) -> None:
        """Let the kernel keep more of the body at a time, as far as it is allowed to."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.fileno)) as own:  # no file descriptor left: not now
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)

    def end(self) -> None:
        """The whole answer was written: the connection is the server's again."""
        self._protocol.sender = None
        transport = self._protocol.transport
        transport.set_write_buffer_limits()
        self._cycle.response_complete = True
        if not self._cycle.keep_alive:
            transport.close()
        self._protocol.on_response_complete()

    def abort(self) -> None:
        """Cut the connection: the client sees that something is missing. No ``client_left`` comes."""
        self._protocol.sender = None
        self._protocol.transport.abort()


def can_take_over(scope: Scope) -> bool:
    """Whether ``take_over`` would do, as it looks now."""
    return _takeable(scope) is not None


def take_over(scope: Scope, sender: Sender) -> Wire | None:
    """Send the answer yourself from now on, and return from the application, whose request is forgotten.

    None: ``send`` has to be used, for the reasons that ``send_whole`` has, and over TLS.
    """
    if (taken := _takeable(scope)) is None:
        return None
    cycle, protocol = taken
    wire = Wire(cycle, protocol)
    cycle.response_started = True
    cycle.disconnected = True  # to uvicorn: it does not mind then that the application returns before the end
    cycle.waiting_for_100_continue = False
    cycle.message_event = _NOBODY_WAITS
    if protocol.scope is cycle.scope:  # not when the next request has begun to come
        protocol.scope, protocol.headers = cast("HTTPScope", {}), []
    cycle.scope = cast("HTTPScope", {})
    protocol.sender = sender
    protocol.transport.set_write_buffer_limits(high=0)  # what is written goes at once, or ``can_write`` says when
    return wire


def _takeable(scope: Scope) -> tuple[RequestResponseCycle, BoundedHttpProtocol] | None:
    exchange: ref[RequestResponseCycle] | None = scope.get(EXCHANGE)
    cycle = exchange() if exchange is not None else None
    if (
        cycle is None
        or cycle.response_started
        or cycle.disconnected
        or cycle.transport.is_closing()
        or cycle.transport.get_write_buffer_size()
        or cycle.transport.get_extra_info("sslcontext") is not None
        or scope["method"] == "HEAD"
    ):
        return None
    protocol = cycle.transport.get_protocol()
    return (cycle, protocol) if isinstance(protocol, BoundedHttpProtocol) else None
