"""Hot files, answered from memory: short ranges at once, everything longer by an object of its own (long_streams).

A request is answered here when its link is good and the bytes lie in a finished hot file, by key and record as they
were read within the last second, or are read now; at once when they are few and the key has no streams or bytes to
count. Everything else goes on to the stream application as it came. Links, keys, limits, ranges and headers are read by
that application's own functions.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from weakref import ref

from apps.analytics.recorder import AnswerKind, EventRecorder, route_of
from apps.core.answer_headers import with_always
from apps.core.asgi import AsgiApp, Receive, Scope, Send
from apps.core.errors import ApiError
from apps.core.middleware import request_id_from
from apps.core.web_protocol import can_take_over, header_lines, send_whole
from apps.downloads.open_links import read_wish
from apps.downloads.services.key_limits import check_grant
from apps.downloads.stream_backend import MediaStreamBackend
from apps.downloads.stream_records import AssetRecord
from apps.downloads.stream_targets import file_name, target_of_link
from apps.keys.authentication import grant_by_heart
from apps.keys.documents import Scope as KeyScope
from apps.keys.grants import KeyGrant
from apps.keys.limits import network_of
from apps.streaming.app import read_request
from apps.streaming.headers import stream_headers
from apps.streaming.hotstore import FileState, HotFile, HotStore
from apps.streaming.links import SIGNATURE_PARAMETER, SignedLink, check_link, is_over
from apps.streaming.ports import StreamTarget
from apps.streaming.ranges import ByteRange, Unsatisfiable, parse_range
from apps.streaming.running import RunningStreams
from ytserver.fast_lane.access_log import StreamLog
from ytserver.fast_lane.long_streams import Asked, LongStreams
from ytserver.fast_lane.reading import MAX_LINE_BYTES

MAX_BYTES = 256 * 1024  # of one answer: leaves in one go, and holds no more than a longer stream does at a time
MAX_REMEMBERED = 4096
REFRESH_S = 0.4  # of keys and records, which are good for twice as long
HOLD_S = 1.0
MAX_HELD = 64
PARTIAL = 206
_DECIDED_BY_THE_APP = frozenset(
    {b"origin", b"if-range", b"if-match", b"if-none-match", b"content-length", b"transfer-encoding", b"expect"}
)


@dataclass(slots=True, kw_only=True)
class _Known:
    """A link that was checked, and what all answers to it have in common as long as the record is the same one."""

    link: SignedLink
    path: tuple[str, str]  # kind and video id
    events: AnswerKind
    facts: dict[str, str]  # of the events of long streams
    target: StreamTarget | None = None
    record: ref[AssetRecord] | None = None  # weak: many links would keep many old records
    lines: bytes = b""


class StreamLane:
    """ASGI, in front of ``app`` and all that is around it, for paths under /stream/. Belongs to one event loop."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        backend: MediaStreamBackend,
        store: HotStore,
        running: RunningStreams,
        recorder: EventRecorder,
        hsts_s: int,
    ) -> None:
        self._app = app
        self._backend = backend
        self._store = store
        self._recorder = recorder
        self._hsts_s = hsts_s
        self._links: OrderedDict[tuple[str, bytes, str], _Known] = OrderedDict()
        self._refreshed_at: dict[tuple[str, str], float] = {}
        self._held: dict[str, HotFile] = {}
        self._held_before: dict[str, HotFile] = {}
        self._log = StreamLog()
        self.long = LongStreams(backend=backend, running=running, recorder=recorder, log=self._log)

    async def aclose(self) -> None:
        await self.long.aclose()
        self._log.write()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET" or not await self._answer(scope, send):
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, send: Send) -> bool:
        """Whether the request has been answered."""
        started_at = time.monotonic()
        head = _read_head(scope)
        known = self._known(scope) if head is not None else None
        if head is None or known is None:
            return False
        asked, request_id = head
        link = known.link
        client = scope.get("client")
        address = client[0] if client else ""
        good = self._good(known, scope["scheme"], address)
        if good is None and can_take_over(scope) and read_wish(link.asset_id) is None:
            with suppress(ApiError):  # the application says why
                await self._backend.read_again(link.asset_id, link.key_prefix)
            good = self._good(known, scope["scheme"], address)
        if good is None or (found := self._find(link.asset_id, good[1].generation, asked)) is None:
            return False
        grant, record = good
        hot_file, part, size_bytes = found
        if part is None or part.stop - part.start > MAX_BYTES:
            return known.target is not None and await self.long.start(
                Asked(
                    scope=scope, link=link, target=known.target, route=known.events.route, facts=known.facts,
                    lines=known.lines, request_id=request_id, address=address, started_at=started_at, part=part,
                    size_bytes=size_bytes,
                ),
                grant,
                hot_file,
            )  # fmt: skip
        if grant.bytes_per_day is not None or grant.concurrent_streams is not None:
            return False
        length = part.stop - part.start
        lines = known.lines  # those of this record: there may be another one when the event is written
        view = hot_file.view(part.start, part.stop)
        _, event = self._recorder.draft(known.events, link.key_prefix, started_at=started_at, size_bytes=length)
        await self._recorder.append(event)
        waited_s = time.monotonic() - started_at
        self._recorder.answered(known.events, first_byte_s=waited_s, size_bytes=length)
        self._recorder.seen_streaming(link.key_prefix, address)
        own = (
            (b"x-request-id", request_id.encode()),
            (b"content-length", b"%d" % length),
            (b"content-range", part.content_range(size_bytes).encode()),
        )
        if not send_whole(scope, PARTIAL, lines + header_lines(own), view):
            headers = [*_headers(record, link, scope["scheme"], self._hsts_s), *own]
            await send({"type": "http.response.start", "status": PARTIAL, "headers": headers})
            await send({"type": "http.response.body", "body": view})
        self._log.add(
            scope["path"], link, request_id, client=address, status=PARTIAL, sent_bytes=length, lasted_s=waited_s
        )
        return True

    def _known(self, scope: Scope) -> _Known | None:
        line = (scope["path"], scope["query_string"], scope["scheme"])
        known = self._links.get(line)
        if known is not None:
            return None if is_over(known.link) else known
        if len(scope["path"]) + len(scope["query_string"]) > MAX_LINE_BYTES:  # parameters that are not signed
            return None
        try:
            request = read_request(scope)
            if SIGNATURE_PARAMETER not in request.query:
                return None
            link = check_link(request.path, request.query)
        except ApiError:
            return None
        facts = {"video_id": request.video_id, "asset_id": link.asset_id, "tier": "hot"}
        events = AnswerKind(
            route=route_of(scope["path"]), method="GET", status=PARTIAL, facts=facts, counted_as="stream"
        )
        known = self._links[line] = _Known(
            link=link,
            path=(request.kind, request.video_id),
            events=events,
            facts={"key_prefix": link.key_prefix, **facts},
        )
        if len(self._links) > MAX_REMEMBERED:
            self._links.popitem(last=False)
        return known

    def _good(self, known: _Known, scheme: str, address: str) -> tuple[KeyGrant, AssetRecord] | None:
        """Key and record, when the bytes may be sent to this address now without asking anybody."""
        link = known.link
        grant = grant_by_heart(link.key_prefix)
        if (
            grant is None
            or KeyScope.MEDIA not in grant.scopes
            or (link.bound_to and link.bound_to != network_of(address))
        ):
            return None
        self._keep_fresh(link)
        record = self._backend.record_by_heart(link.asset_id)
        if record is None or not record.is_finished:
            return None
        if known.record is None or known.record() is not record:
            if (record.key.kind, record.key.video_id) != known.path:
                return None
            known.record = ref(record)
            known.target = target_of_link(record, link)
            known.lines = header_lines(_headers(record, link, scheme, self._hsts_s))
        try:
            check_grant(grant, duration_s=record.duration_s, size_bytes=record.size_bytes)
        except ApiError:
            return None
        return grant, record

    def _keep_fresh(self, link: SignedLink) -> None:
        """Have key and record read again in the background before they are too old, so that nobody waits for it."""
        now, about = time.monotonic(), (link.key_prefix, link.asset_id)
        if now - self._refreshed_at.get(about, 0.0) < REFRESH_S:
            return
        if len(self._refreshed_at) >= MAX_REMEMBERED:
            self._refreshed_at.clear()
        self._refreshed_at[about] = now
        self._backend.refresh_soon(link.asset_id, link.key_prefix, max_age_s=REFRESH_S)

    def _find(self, asset_id: str, generation: int, asked: str) -> tuple[HotFile, ByteRange | None, int] | None:
        """The file, the range (None: all of it) and the size, when all bytes are there."""
        hot_file = self._held.get(asset_id)
        if hot_file is None or hot_file.generation != generation or not hot_file.is_current:
            hot_file = self._store.open(asset_id, generation)
        if hot_file is None:
            return None
        size_bytes = hot_file.size_bytes
        if hot_file.state is not FileState.FINAL or size_bytes is None:
            return None
        self._hold(asset_id, hot_file)
        try:
            part = parse_range(asked or None, size_bytes)
        except Unsatisfiable:
            return None
        return hot_file, part, size_bytes

    def _hold(self, asset_id: str, hot_file: HotFile) -> None:
        """For HOLD_S, so that those who ask meanwhile share it, and as long again, so that none need map it anew."""
        if not self._held and not self._held_before:
            asyncio.get_running_loop().call_later(HOLD_S, self._let_go)
        if len(self._held) < MAX_HELD:
            self._held[asset_id] = hot_file

    def _let_go(self) -> None:
        self._held_before, self._held = self._held, {}
        if self._held_before:
            asyncio.get_running_loop().call_later(HOLD_S, self._let_go)


def _read_head(scope: Scope) -> tuple[str, str] | None:
    """The range (empty: none) and the request's id; None: with more than that to decide."""
    asked, given_id = "", ""
    for name, value in scope["headers"]:
        if name == b"range":
            if asked:
                return None
            asked = value.decode("latin-1")
        elif name == b"x-request-id":
            given_id = value.decode("latin-1")
        elif name in _DECIDED_BY_THE_APP:
            return None
    return asked, request_id_from(given_id)


def _headers(record: AssetRecord, link: SignedLink, scheme: str, hsts_s: int) -> list[tuple[bytes, bytes]]:
    """Those that all ranges have in common."""
    headers = stream_headers(
        mime=record.mime, etag=record.etag, title=file_name(record), attachment=link.attachment, request_id=""
    )
    own = [*((name, value) for name, value in headers if name != b"x-request-id"), (b"accept-ranges", b"bytes")]
    return with_always(own, scheme, hsts_s=hsts_s)
