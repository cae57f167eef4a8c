"""The stream application: plain ASGI, beside Django. Files leave as slices of mapped memory, with back-pressure."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from contextlib import suppress
from urllib.parse import parse_qsl

from apps.core.api_errors import error_headers, log_unknown, to_api_error
from apps.core.asgi import Receive, Scope, Send
from apps.core.errors import (
    STILL_COMING_RETRY_S,
    ApiError,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    UpstreamTimeout,
    error_body,
)
from apps.core.logs import LoggedElsewhere, request_id_var, shown_path
from apps.core.middleware import request_id_from
from apps.core.trace import note
from apps.streaming.following import Followers
from apps.streaming.headers import RawHeaders, stream_headers
from apps.streaming.hotstore import HotStore
from apps.streaming.ports import BytesGone, FetchedAnew, StreamBackend, StreamMeter, StreamRequest, StreamTarget
from apps.streaming.ranges import ByteRange, Unsatisfiable, is_as_named, is_unchanged, parse_range, range_applies
from apps.streaming.running import Interruption, RunningStream, RunningStreams
from apps.streaming.source import Source
from apps.streaming.sparse import SparseFiles
from apps.streaming.timing import StreamTiming
from apps.streaming.turns import Turns

SLICE_BYTES = 256 * 1024
CHUNKED_SLICE_BYTES = 32 * 1024  # the server copies these, to put each chunk's frame around it
# Of a file that is still coming, or comes back: whoever waited for it has a first byte before anybody has more.
FIRST_BYTES = 16 * 1024
YIELD_EVERY_BYTES = 1024 * 1024  # to a fast client, sending never waits: let others have their turn
MAX_QUERY_FIELDS = 50
RENEWALS = 2  # of a target whose bytes turn out to be gone before the first one is sent
ALLOWED_METHODS = "GET, HEAD"
_PATH = re.compile(r"/stream/(?P<kind>video|audio)/(?P<video_id>[A-Za-z0-9_-]{11})", re.ASCII)

access_log = logging.getLogger("ytserver.access")


class StreamAborted(LoggedElsewhere):
    """A stream that cannot go on. The server closes the connection, so that its client sees a failure, not an end."""


class StreamApp:
    """ASGI application for ``/stream/<kind>/<video id>``. Belongs to one event loop."""

    def __init__(self, backend: StreamBackend, store: HotStore, timing: StreamTiming | None = None) -> None:
        self._backend = backend
        self._store = store
        self._timing = timing or StreamTiming()
        self.followers = Followers(backend, self._timing)
        self._sparse = SparseFiles(store)
        self.running = RunningStreams(backend, self._timing)
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises StreamAborted when the answer had begun and cannot be completed."""
        answer = _Answer(scope, send)
        token = request_id_var.set(answer.request_id)
        interruption = Interruption()
        watch = asyncio.create_task(_watch_for_leaving(receive, interruption))
        try:
            await self._answer(answer, interruption)
        except asyncio.CancelledError:
            if not interruption.taken():
                raise
            answer.error = interruption.error
            if interruption.error is not None:
                await answer.fail(interruption.error)
        finally:
            watch.cancel()
            answer.log(left=interruption.is_set and interruption.error is None)
            request_id_var.reset(token)

    async def _answer(self, answer: _Answer, interruption: Interruption) -> None:
        try:
            request = read_request(answer.scope)
            target = await self._backend.open_target(request)
            note(answer.scope, key_prefix=target.key_prefix, video_id=request.video_id, asset_id=target.asset_id)
            for _ in range(RENEWALS):
                try:
                    await self._answer_with(answer, interruption, request, target)
                    return
                except (BytesGone, FetchedAnew):
                    if answer.status is not None:
                        raise
                target = await self._backend.renew_target(target)
            await self._answer_with(answer, interruption, request, target)
        except StreamAborted:
            raise
        except Exception as error:  # noqa: BLE001 - the last place: the caller gets the documented error
            await answer.fail(to_api_error(error) or log_unknown(error))

    async def _answer_with(
        self, answer: _Answer, interruption: Interruption, request: StreamRequest, target: StreamTarget
    ) -> None:
        answer.target = target
        if not is_as_named(request.headers.get("if-match"), target.etag):
            raise PreconditionFailed
        if is_unchanged(request.headers.get("if-none-match"), target.etag):
            await answer.begin(304, answer.common_headers())
            await answer.end()
        else:
            await self._send_file(answer, interruption, request, target)

    async def _send_file(
        self, answer: _Answer, interruption: Interruption, request: StreamRequest, target: StreamTarget
    ) -> None:
        source = Source(
            backend=self._backend,
            store=self._store,
            sparse=self._sparse,
            followers=self.followers,
            timing=self._timing,
            target=target,
        )
        stream = RunningStream(target, interruption)
        meter = target.meter if request.method == "GET" else None
        self.running.add(stream)
        try:
            if meter is not None:
                await meter.open()
            await source.open()
            note(answer.scope, tier=source.tier)
            part = await self._wait_for_part(source, request, target)
            size = source.size_bytes
            if meter is not None and size is not None:
                meter.check_size(size)
            await answer.begin(*_head(part, size, answer.common_headers()))
            if request.method == "HEAD":
                await answer.end()
            else:
                start, stop = (part.start, part.stop) if part else (0, size)
                await _send_body(answer, source, stream, self._turns, start, stop)
        finally:
            if meter is not None:
                meter.close()
            self.running.discard(stream)
            source.close()

    async def _wait_for_part(self, source: Source, request: StreamRequest, target: StreamTarget) -> ByteRange | None:
        """The range to send, once its first byte is there; None: all. A size that is told only meanwhile counts."""
        size = source.size_bytes
        part = _asked_for(request, target, size)
        if request.method == "GET":
            await self._wait_for_first_byte(source, part.start if part else 0)
            if size is None and (part := _asked_for(request, target, source.size_bytes)) is not None:
                await self._wait_for_first_byte(source, part.start)
        return part

    async def _wait_for_first_byte(self, source: Source, start: int) -> None:
        """Before the headers, so that a failure is a clean error."""
        if source.available_from(start):
            return
        try:
            async with asyncio.timeout(self._timing.first_byte_s):
                await source.wait_for(start)
        except TimeoutError:
            raise UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S) from None


class _Answer:
    """What has been sent for one request so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.send = send
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.request_id = request_id_from(given)
        self.target: StreamTarget | None = None
        self.status: int | None = None
        self.sent_bytes = 0
        self.is_whole = False
        self.error: ApiError | None = None
        self._started_at = time.monotonic()

    def common_headers(self) -> RawHeaders:
        target = self.target
        if target is None:
            raise ValueError("there is no target yet")
        own = stream_headers(
            mime=target.mime,
            etag=target.etag,
            title=target.file_name,
            attachment=target.attachment,
            request_id=self.request_id,
        )
        return [*own, *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in target.headers)]

    async def begin(self, status: int, headers: RawHeaders) -> None:
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def send_slice(self, piece: memoryview, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": piece, "more_body": more})
        self.sent_bytes += len(piece)
        self.is_whole = not more

    async def end(self) -> None:
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        self.is_whole = True

    async def fail(self, error: ApiError) -> None:
        """The error JSON, or when the answer has begun: StreamAborted."""
        self.error = error
        note(self.scope, error=error.code)
        if self.status is not None:
            raise StreamAborted(error.code) from None
        body = json.dumps(error_body(error, request_id=self.request_id)).encode()
        headers = {"Content-Type": "application/json", "X-Request-Id": self.request_id, **error_headers(error)}
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self.begin(error.status, [*raw, (b"content-length", str(len(body)).encode())])
        await self.send({"type": "http.response.body", "body": body, "more_body": False})
        self.is_whole = True

    def log(self, *, left: bool) -> None:
        """One access line a stream: what came of it, without its query string."""
        target = self.target
        access_log.info(
            "stream",
            extra={
                "method": self.scope["method"],
                "path": shown_path(self.scope["path"]),
                "status": self.status,
                "outcome": "client_left" if left else "whole" if self.is_whole else "aborted",
                "error": self.error.code if self.error else None,
                "sent_bytes": self.sent_bytes,
                "duration_ms": round((time.monotonic() - self._started_at) * 1000, 1),
                "key_prefix": target.key_prefix if target else None,
                "asset_id": target.asset_id if target else None,
                "client": _client_address(self.scope),
            },
        )


def read_request(scope: Scope) -> StreamRequest:
    """Raises NotFound, MethodNotAllowed, InvalidParameter."""
    path: str = scope["path"]
    match = _PATH.fullmatch(path)
    if match is None:
        raise NotFound
    if scope["method"] not in {"GET", "HEAD"}:
        error = MethodNotAllowed()
        error.headers["Allow"] = ALLOWED_METHODS
        raise error
    try:
        fields = parse_qsl(
            scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError:
        raise InvalidParameter("The query cannot be read.") from None
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return StreamRequest(
        kind=match["kind"],
        video_id=match["video_id"],
        path=path,
        query=dict(fields),
        headers=headers,
        client_address=_client_address(scope),
        method=scope["method"],
    )


def _client_address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _asked_for(request: StreamRequest, target: StreamTarget, size_bytes: int | None) -> ByteRange | None:
    """The range to send; None for all of it. HEAD knows no ranges (RFC 9110, 14.2), nor do files of unknown size."""
    if size_bytes is None or request.method != "GET":
        return None
    if not range_applies(request.headers.get("if-range"), target.etag):
        return None
    try:
        return parse_range(request.headers.get("range"), size_bytes)
    except Unsatisfiable:
        error = RangeNotSatisfiable(size_bytes=size_bytes)
        error.headers["Content-Range"] = f"bytes */{size_bytes}"
        raise error from None


def _head(part: ByteRange | None, size_bytes: int | None, headers: RawHeaders) -> tuple[int, RawHeaders]:
    if size_bytes is None:
        return 200, headers
    headers.append((b"accept-ranges", b"bytes"))
    if part is None:
        headers.append((b"content-length", str(size_bytes).encode()))
        return 200, headers
    headers.append((b"content-length", str(part.stop - part.start).encode()))
    headers.append((b"content-range", part.content_range(size_bytes).encode()))
    return 206, headers


async def _send_body(
    answer: _Answer, source: Source, stream: RunningStream, turns: Turns, start: int, stop: int | None
) -> None:
    """The bytes [start, stop), as they become available; ``stop`` None: until the file is finished."""
    meter = stream.target.meter
    now = asyncio.get_running_loop().time
    slice_bytes = CHUNKED_SLICE_BYTES if stop is None else SLICE_BYTES
    at = start
    was_here = stream.target.block_hashes and source.tier == "hot"
    yield_at = start + (YIELD_EVERY_BYTES if was_here else FIRST_BYTES)
    while stop is None or at < stop:
        available = source.available_from(at)
        if not available:
            await source.wait_for(at)
            available = source.available_from(at)
        if not available:
            break
        end = min(at + min(available, slice_bytes), yield_at)
        if stop is not None:
            end = min(end, stop)
        if meter is not None:
            taken = _taken(meter, source, at, end, is_sized=stop is not None)
            if not taken:
                await meter.refill()
                continue
            end = at + taken
        stream.sending_since = now()
        await answer.send_slice(source.view(at, end), more=end != stop)
        stream.sending_since = None
        at = end
        if at >= yield_at:
            yield_at = at + YIELD_EVERY_BYTES
            await turns.wait()
    if stop is None:
        await answer.end()
    elif at != stop:
        raise UpstreamTimeout("The file ended too early.")


def _taken(meter: StreamMeter, source: Source, at: int, end: int, *, is_sized: bool) -> int:
    """How many of the bytes [at, end) may leave. Raises FileTooLarge for a file whose size nobody knew."""
    if not is_sized:
        meter.check_size(source.size_bytes or end)
    return meter.take(end - at)


async def _watch_for_leaving(receive: Receive, interruption: Interruption) -> None:
    """Read and drop what the client still sends; when it leaves, so does everything done for it."""
    with suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
    interruption.interrupt(None)
