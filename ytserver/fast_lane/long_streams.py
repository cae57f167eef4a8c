"""Long streams of finished files, sent without a task for each: ten thousand of them are ten thousand small objects."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from apps.analytics.open_stream import OpenStream
from apps.analytics.recorder import EventRecorder
from apps.core.asgi import Scope
from apps.core.errors import ApiError
from apps.core.web_protocol import can_take_over, header_lines, take_over
from apps.downloads.stream_backend import MediaStreamBackend
from apps.keys.grants import KeyGrant
from apps.streaming.hotstore import HotFile
from apps.streaming.links import SignedLink
from apps.streaming.ports import StreamMeter, StreamTarget
from apps.streaming.ranges import ByteRange
from apps.streaming.running import RunningStreams
from apps.streaming.sending import FileSender
from ytserver.fast_lane.access_log import StreamLog

BEGUN_TURN_S = 0.002  # of the event loop, for going on with streams that have begun, before others may begin
ENDING_S = 3.0  # for the events of what was still open when the server stopped


@dataclass(slots=True, frozen=True, kw_only=True)
class Asked:
    """What a request wants, after everything about it was found good."""

    scope: Scope
    link: SignedLink
    target: StreamTarget
    route: str
    facts: dict[str, str]  # of its event
    lines: bytes  # headers that all answers to this link have
    request_id: str
    address: str
    started_at: float
    part: ByteRange | None  # None: everything
    size_bytes: int


class LongStreams:
    """Those that run now. Belongs to one event loop."""

    def __init__(
        self, *, backend: MediaStreamBackend, running: RunningStreams, recorder: EventRecorder, log: StreamLog
    ) -> None:
        self._backend = backend
        self.running = running
        self.recorder = recorder
        self.log = log
        self._open: set[LongStream] = set()
        self._begun: deque[LongStream] = deque()  # with their first bytes on the way, and room for more
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def start(self, asked: Asked, grant: KeyGrant, hot_file: HotFile) -> bool:
        """Whether it is on its way; if not, nothing was sent or counted, and the stream application has to answer."""
        if not can_take_over(asked.scope):
            return False
        meter = self._backend.meter(grant)
        try:
            await meter.open()
        except ApiError:  # the application will be refused too, and says why
            return False
        stream = LongStream(self, asked, hot_file, meter)
        wire = take_over(asked.scope, stream)
        if wire is None:
            stream.forgo()
            return False
        self._open.add(stream)
        self.running.add(stream)
        stream.begin(wire, wire.head(stream.status, asked.lines + header_lines(_own_headers(asked))))
        return True

    def go_on_soon(self, stream: LongStream) -> None:
        """At once when little is going on. When many begin, their first bytes and other answers come before it."""
        self._begun.append(stream)
        if len(self._begun) == 1:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        turn_ends_at = time.monotonic() + BEGUN_TURN_S
        try:
            while self._begun:
                self._begun.popleft().can_write()
                if time.monotonic() >= turn_ends_at:
                    break
        finally:
            if self._begun:
                asyncio.get_running_loop().call_soon(self._go_on)

    def ended(self, stream: LongStream) -> None:
        self._open.discard(stream)
        self.running.discard(stream)

    def background(self, work: asyncio.Task[None]) -> None:
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cut what is still open; return when its events are on their way, after ENDING_S at the latest."""
        for stream in list(self._open):
            stream.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDING_S)


class LongStream(FileSender):
    """One stream: its counts, its event, its line in the log."""

    __slots__ = ("_address", "_all", "_is_stopping", "_link", "_path", "_record", "_request_id", "status", "target")

    def __init__(self, all_streams: LongStreams, asked: Asked, hot_file: HotFile, meter: StreamMeter) -> None:
        part = asked.part
        super().__init__(hot_file, part.start if part else 0, part.stop if part else asked.size_bytes, meter)
        self._all = all_streams
        self._link = asked.link
        self._path: str = asked.scope["path"]
        self._request_id = asked.request_id
        self._address = asked.address
        self._is_stopping = False
        self.status = 206 if part else 200
        self.target = asked.target
        self._record = OpenStream(
            all_streams.recorder,
            route=asked.route,
            facts=asked.facts,
            address=asked.address,
            started_at=asked.started_at,
        )

    @property
    def interruption(self) -> LongStream:
        """As RunningStreams asks for it."""
        return self

    def forgo(self) -> None:
        """It does not begin."""
        self._meter.close()
        self._record.close()

    def stop(self) -> None:
        """The server stops."""
        self._is_stopping = True
        self.interrupt(None)

    def _sent(self, size_bytes: int) -> None:
        self._record.sent(size_bytes)

    async def _before_last(self) -> None:
        await self._record.record(self.status, more_bytes=self._stop - self._at)

    def _go_on_soon(self) -> None:
        self._all.go_on_soon(self)

    def _background(self, work: asyncio.Task[None]) -> None:
        self._all.background(work)

    def _ended(self, *, is_whole: bool, error: ApiError | None) -> None:
        self._meter.close()
        record = self._record
        record.close()
        code = error.code if error else None
        if not is_whole:
            self._background(asyncio.get_running_loop().create_task(record.record_broken_off(code)))
        self._all.ended(self)  # after that: whoever waits until none is open then waits for its event too
        self._all.log.add(
            self._path,
            self._link,
            self._request_id,
            client=self._address,
            status=self.status,
            outcome="whole" if is_whole else "aborted" if error or self._is_stopping else "client_left",
            error=code,
            sent_bytes=record.sent_bytes,
            lasted_s=record.lasted_s,
        )


def _own_headers(asked: Asked) -> tuple[tuple[bytes, bytes], ...]:
    request_id = (b"x-request-id", asked.request_id.encode())
    part = asked.part
    if part is None:
        return request_id, (b"content-length", b"%d" % asked.size_bytes)
    length = (b"content-length", b"%d" % (part.stop - part.start))
    return request_id, length, (b"content-range", part.content_range(asked.size_bytes).encode())
