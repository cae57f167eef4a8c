"""uvicorn's HTTP protocol with the limits that it lacks: how large a request's head is, and how slowly it comes."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
        if self._head_timer is None and not self._in_head and self._is_answered:
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
        self._in_head = True
        if self._head_timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
