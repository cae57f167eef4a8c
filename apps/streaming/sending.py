"""Sending a finished file by the kernel (sendfile), as its client has room, without a task that waits for it.

Bytes go from the page cache to the socket, past Python and the web server's own queue. When there is no more room, a
few bytes go through that queue: it says when they have left, and then the kernel has room again.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from enum import Enum, auto

from apps.core.api_errors import log_unknown, to_api_error
from apps.core.errors import ApiError, UpstreamError
from apps.core.web_protocol import Wire
from apps.streaming.hotstore import HotFile
from apps.streaming.ports import StreamMeter

TURN_BYTES = 1024 * 1024  # to a fast client, sending never waits: let others have their turn
WAKE_BYTES = (
    256 * 1024
)  # pages of the file, not a copy: the server looks after slow clients, and Python is asked rarely
QUICK_WAKE_BYTES = 4096
FIRST_BYTES = 32 * 1024  # before anything else of a stream: two seconds of a slow one
LAST_BYTES = 16 * 1024  # wait for what has to be done before a stream is whole
QUICK_BYTES = 4 * 1024 * 1024  # a client that takes so much within QUICK_S is quick
QUICK_S = 0.5
QUICK_BUFFER_BYTES = 2 * 1024 * 1024  # asked for; the kernel gives what net.core.wmem_max allows


class _Turn(Enum):
    FULL = auto()  # the client has no room
    UNPAID = auto()  # the meter gave no bytes
    OVER = auto()  # others should have their turn


class FileSender(ABC):
    """The bytes [start, stop) of a finished hot file, on their way to one client. Belongs to one event loop."""

    __slots__ = (
        "_at",
        "_hold",
        "_hot_file",
        "_is_wide",
        "_mark",
        "_marked_at",
        "_may_send",
        "_meter",
        "_stop",
        "_wire",
        "sending_since",
    )

    def __init__(self, hot_file: HotFile, start: int, stop: int, meter: StreamMeter) -> None:
        """``meter`` was opened, and is closed by ``_ended``."""
        self._hot_file = hot_file
        self._at = self._mark = start
        self._stop = stop
        self._hold = max(start, stop - LAST_BYTES)
        self._meter = meter
        self._may_send = 0  # the meter's bytes that have not been sent
        self._wire: Wire | None = None  # None as well when it is over
        self._marked_at = 0.0
        self._is_wide = False
        self.sending_since: float | None = None  # loop time; None while it waits for something else than its client

    @abstractmethod
    def _sent(self, size_bytes: int) -> None:
        """So many bytes have been handed on."""

    @abstractmethod
    async def _before_last(self) -> None:
        """The last bytes wait for this. Raises ApiError when they may not leave."""

    @abstractmethod
    def _ended(self, *, is_whole: bool, error: ApiError | None) -> None:
        """Everything was handed on, or the client left, or (``error``) it may not go on. Called once."""

    @abstractmethod
    def _go_on_soon(self) -> None:
        """It has begun and there is room: call ``can_write``, when those who wait for their first bytes have them."""

    @abstractmethod
    def _background(self, work: asyncio.Task[None]) -> None:
        """Keep a task until it has ended."""

    def begin(self, wire: Wire, head: bytes) -> None:
        """Send ``head`` and what there is room for."""
        self._wire = wire
        loop = asyncio.get_running_loop()
        self._marked_at = self.sending_since = loop.time()
        try:
            has_room = self._send_first(wire, head)
        except ValueError:
            self._break_off(UpstreamError())
            return
        if has_room:
            self._go_on_soon()

    def can_write(self) -> None:
        """There is room again."""
        wire = self._wire
        if wire is None:
            return
        before = self._at
        try:
            turn = self._send_turn(wire)
        except ConnectionError:
            self._sent(self._at - before)
            self._break_off(None)
            return
        except (OSError, ValueError):  # the file is not what it was
            self._sent(self._at - before)
            self._break_off(UpstreamError())
            return
        self._sent(self._at - before)
        loop = asyncio.get_running_loop()
        self.sending_since = loop.time() if turn is _Turn.FULL else None
        if turn is _Turn.UNPAID:
            self._background(loop.create_task(self._refill()))
        elif turn is _Turn.OVER and self._at < self._hold:
            loop.call_soon(self.can_write)
        elif turn is _Turn.OVER:
            self._background(loop.create_task(self._finish()))

    def client_left(self) -> None:
        """The connection is over."""
        self._over(is_whole=False, error=None)

    def interrupt(self, error: ApiError | None) -> None:
        """Cut the connection, from outside."""
        self._break_off(error)

    def _send_first(self, wire: Wire, head: bytes) -> bool:
        """The head, together with a little of the body, so that both arrive at once."""
        self._may_send = self._meter.take(min(self._hold - self._at, TURN_BYTES)) if self._at < self._hold else 0
        first = min(self._may_send, FIRST_BYTES)
        has_room = wire.write(head, self._hot_file.view(self._at, self._at + first)) if first else wire.write(head)
        self._moved(first)
        self._sent(first)
        return has_room

    def _send_turn(self, wire: Wire) -> _Turn:
        turn_end = min(self._hold, self._at + TURN_BYTES)
        while self._at < turn_end:
            if not self._may_send:
                self._may_send = self._meter.take(min(self._hold - self._at, TURN_BYTES))
                if not self._may_send:
                    return _Turn.UNPAID
            if not self._send_piece(wire, min(turn_end - self._at, self._may_send)):
                return _Turn.FULL
        if not self._is_wide and self._at - self._mark >= QUICK_BYTES:
            self._widen_for_quick(wire)
        return _Turn.OVER

    def _send_piece(self, wire: Wire, size_bytes: int) -> bool:
        try:
            sent = self._hot_file.send(wire.fileno, self._at, self._at + size_bytes)
            if not sent:
                raise ValueError("the file was made shorter")
        except BlockingIOError:
            sent = 0
        self._moved(sent)
        if sent == size_bytes:
            return True
        few = min(QUICK_WAKE_BYTES if self._is_wide else WAKE_BYTES, size_bytes - sent)
        has_left = wire.write(self._hot_file.view(self._at, self._at + few))
        self._moved(few)
        return has_left

    def _moved(self, size_bytes: int) -> None:
        self._at += size_bytes
        self._may_send -= size_bytes

    def _widen_for_quick(self, wire: Wire) -> None:
        """A quick client is asked less often when the kernel keeps more for it. Others would only fill memory."""
        now = asyncio.get_running_loop().time()
        if now - self._marked_at < QUICK_S:
            self._is_wide = True
            wire.widen(QUICK_BUFFER_BYTES)
        self._mark, self._marked_at = self._at, now

    async def _refill(self) -> None:
        try:
            await self._meter.refill()
        except Exception as error:  # noqa: BLE001 - the last place: nobody else would end the stream
            self._break_off(to_api_error(error) or log_unknown(error))
        else:
            self.can_write()

    async def _finish(self) -> None:
        try:
            while (missing := self._stop - self._at - self._may_send) > 0 and self._wire is not None:
                taken = self._meter.take(missing)
                self._may_send += taken
                if not taken:
                    await self._meter.refill()
            if self._wire is not None:
                await self._before_last()
        except Exception as error:  # noqa: BLE001 - as above
            self._break_off(to_api_error(error) or log_unknown(error))
        wire = self._wire
        if wire is None:
            return
        wire.write(self._hot_file.view(self._at, self._stop))
        self._sent(self._stop - self._at)
        self._moved(self._stop - self._at)
        wire.end()
        self._over(is_whole=True, error=None)

    def _break_off(self, error: ApiError | None) -> None:
        if self._wire is not None:
            self._wire.abort()
        self._over(is_whole=False, error=error)

    def _over(self, *, is_whole: bool, error: ApiError | None) -> None:
        if self._wire is not None:
            self._wire = None
            self._meter.put_back(self._may_send)
            self._ended(is_whole=is_whole, error=error)
