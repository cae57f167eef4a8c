"""ASGI middleware that records every API call and every stream as one event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from django.urls import Resolver404, resolve

from apps.analytics.active_users import Activity, user_id
from apps.analytics.counting import LiveCounters, LivePublisher
from apps.analytics.event_writer import EventWriter
from apps.analytics.events import event_payload
from apps.core.asgi import AsgiApp, Message, Receive, Scope, Send
from apps.core.redis import make_async_redis
from apps.core.request_state import STARTED_AT
from apps.core.trace import note, noted

STREAM_KINDS = frozenset({"video", "audio"})
DIALECT_PATHS = ("/song/", "/video/", "/api/track", "/api/song", "/youtube/", "/queued/youtube/")
RECORDED_PATHS = ("/api/v1/", "/stream/", *DIALECT_PATHS)
CLIENT_LEFT = 499
KEYLESS_BURST = 100
KEYLESS_PER_S = 2.0
NO_ROUTE = "*"
SHORT_PATH_CHARS = 64  # longer ones are not worth remembering
STREAM_STATUSES = frozenset({200, 206})
EVENT_ID = "ytserver.event_id"  # in the scope: of an event that may have been appended already
TRACE_FIELDS = ("key_prefix", "video_id", "asset_id", "tier", "error")


def route_of(path: str) -> str:
    """The route without ids, so that events of one route add up: ``/stream/video``, ``/api/v1/jobs``.

    What is no route of ours adds up under ``*``: strangers must not fill the statistics with names that they make up.
    """
    if path.startswith("/stream/"):
        kind = path.split("/")[2]
        return f"/stream/{kind if kind in STREAM_KINDS else NO_ROUTE}"
    if not (_has_view(path) if len(path) <= SHORT_PATH_CHARS else _has_view.__wrapped__(path)):
        return f"/api/v1/{NO_ROUTE}"
    depth = 2 if path.startswith(("/song/", "/video/")) else 4
    return "/".join(path.split("/")[:depth])


@lru_cache(maxsize=1024)
def _has_view(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


class AnswerKind:
    """What many good answers have in common: the same fields of their events, and where they are counted."""

    def __init__(
        self, *, route: str, method: str, status: int, facts: Mapping[str, str], counted_as: str = "api"
    ) -> None:
        self.route = route
        self.counted_as = counted_as
        self.status = status
        self.tier = facts.get("tier", "")
        fields = {"route": route, "method": method, "status": status}
        self.common = event_payload({**fields, **{name: facts[name] for name in TRACE_FIELDS if facts.get(name)}})[1:-1]


class _Allowance:
    """How many events of requests without a good key are kept: a burst, then a few each second."""

    def __init__(self) -> None:
        self._left = float(KEYLESS_BURST)
        self._counted_at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(KEYLESS_BURST, self._left + (now - self._counted_at) * KEYLESS_PER_S)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class EventRecorder:
    """Wraps the whole application. An answer's last bytes wait for its event, so what was answered was counted.

    Of requests without a good key only KEYLESS_BURST, then KEYLESS_PER_S, are kept as events in each process: events
    stay for months, and a stranger could fill the disk with them. The live figures count all of them.

    Whoever stands in front of it with a Redis call of its own may answer there and send the event along with that call:
    see ``draft`` and ``answered``.
    """

    def __init__(self, app: AsgiApp) -> None:
        self.app = app
        self.counters = LiveCounters()
        self._parts: _Parts | None = None
        self._keyless = _Allowance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(RECORDED_PATHS):
            await self.app(scope, receive, send)
            return
        recording = Recording(scope, send, self._running().writer, self.counters, self._keyless)
        await recording.run(self.app, receive)

    def draft(self, kind: AnswerKind, key_prefix: str, *, started_at: float, size_bytes: int) -> tuple[str, str]:
        """The id and the payload of an event, for whoever appends it (``events.APPEND_SCRIPT``) right before a whole
        answer of ``size_bytes``; then: ``answered``. Its times are those from ``started_at`` (``time.monotonic()``) on.

        When nobody knows whether it was appended, the request may simply go on with the id in ``scope[EVENT_ID]``: what
        is recorded at its end takes the place of the draft.
        """
        event_id = self._running().writer.make_id()
        took_s = time.monotonic() - started_at
        times = f'"at":{time.time()!r},"first_byte_s":{took_s:.6f},"duration_s":{took_s:.6f}'
        own = f'"id":"{event_id}",{times},"bytes_sent":{size_bytes},"key_prefix":"{key_prefix}"'
        return event_id, f"{{{own},{kind.common}}}"

    def answered(self, kind: AnswerKind, *, first_byte_s: float, size_bytes: int) -> None:
        """Count an answer whose event is on its way. Who asked is for ``seen``."""
        tally = self.counters.tally(route=kind.route, status=kind.status, kind=kind.counted_as, tier=kind.tier)
        tally.add(first_byte_s, size_bytes)

    async def append(self, payload: str) -> None:
        """Return when Redis has the event, or at once while Redis is away. Raises nothing."""
        await self._running().writer.append(payload)

    async def append_event(self, event: Mapping[str, Any]) -> None:
        """The same for an event that has no id yet."""
        writer = self._running().writer
        await writer.append(writer.make_payload({**event}))

    def seen(self, key_prefix: str, address: str) -> None:
        """Somebody of this key has used the API just now."""
        self.counters.users.seen(user_id(key_prefix, address), Activity.API)

    def stream_opened(self, user: str) -> None:
        """A stream that does not pass through here begins: it counts from now on, also as this process's first work."""
        self._running()
        self.counters.open[Activity.STREAM] += 1
        self.counters.users.opened(user, Activity.STREAM)

    def stream_closed(self, user: str) -> None:
        """What ``stream_opened`` counted has ended."""
        self.counters.open[Activity.STREAM] -= 1
        self.counters.users.closed(user, Activity.STREAM)

    def seen_streaming(self, key_prefix: str, address: str) -> None:
        """Somebody has got all bytes of a stream at once."""
        self.counters.users.seen(user_id(key_prefix, address), Activity.STREAM)

    async def watch_websocket(self, app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a websocket application. Its caller counts as active from the first message, as long as it is open."""
        self._running()
        note(scope)  # what applications note in copies of the scope is then seen here
        is_open, user = False, ""

        async def counted(message: Message) -> None:
            nonlocal is_open, user
            if message["type"] == "websocket.accept":
                is_open = True
                self.counters.open[Activity.WEBSOCKET] += 1
            elif message["type"] == "websocket.send" and not user:  # who it is has been looked at by now
                user = user_id(noted(scope).get("key_prefix"), _address(scope))
                self.counters.users.opened(user, Activity.WEBSOCKET)
            await send(message)

        try:
            await app(scope, receive, counted)
        finally:
            self.counters.open[Activity.WEBSOCKET] -= is_open
            if user:
                self.counters.users.closed(user, Activity.WEBSOCKET)

    async def close(self) -> None:
        """Send what is left and give the Redis connections back; the server is stopping."""
        if self._parts is not None:
            await self._parts.aclose()
            self._parts = None

    def _running(self) -> _Parts:
        if self._parts is None:  # at the first request: there is an event loop then
            self._parts = _Parts(self.counters)
        return self._parts


class _Parts:
    """What needs an event loop: the writer of events, and the publisher of live figures, which runs beside it."""

    def __init__(self, counters: LiveCounters) -> None:
        self._client = make_async_redis()
        self.writer = EventWriter(self._client)
        self._publisher = LivePublisher(counters, self._client)
        self._publishing = asyncio.create_task(self._publisher.run(), name="live-figures")

    async def aclose(self) -> None:
        self._publisher.stop()
        self._publishing.cancel()
        with suppress(asyncio.CancelledError):
            await self._publishing
        await self.writer.aclose()
        await self._publisher.aclose()
        await self._client.aclose()


class Recording:
    """One request on its way to become one event."""

    def __init__(
        self, scope: Scope, send: Send, writer: EventWriter, counters: LiveCounters, keyless: _Allowance
    ) -> None:
        self.scope = scope
        self._send = send
        self._writer = writer
        self._counters = counters
        self._keyless = keyless
        self._kind = "stream" if scope["path"].startswith("/stream/") else "api"
        self._started: float = scope.get(STARTED_AT) or time.monotonic()
        self._first_byte_s: float | None = None
        self._status = 0
        self._bytes = 0
        self._recorded = False
        self._streaming_user = ""
        self._event_id: str = scope.get(EVENT_ID, "")

    async def run(self, app: AsgiApp, receive: Receive) -> None:
        try:
            await app(self.scope, receive, self.send)
        finally:
            self._stop_streaming()
            if not self._recorded:  # the client left, or the stream was broken off
                await self._record(CLIENT_LEFT)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._kind == "stream" and self._status in STREAM_STATUSES and self.scope["method"] == "GET":
                self._streaming_user = self._user()
                self._counters.open[Activity.STREAM] += 1
                self._counters.users.opened(self._streaming_user, Activity.STREAM)
        elif message["type"] == "http.response.body":
            size_bytes = len(message.get("body", b""))
            if self._first_byte_s is None:
                self._first_byte_s = time.monotonic() - self._started
            self._bytes += size_bytes
            self._counters.sent(size_bytes, self._kind)
            if not message.get("more_body", False) and not self._recorded:
                await self._record(self._status)
        await self._send(message)

    async def _record(self, status: int) -> None:
        payload = self._take(status)
        if payload is not None:
            await self._writer.append(payload)

    def _take(self, status: int) -> str | None:
        self._recorded = True
        facts = noted(self.scope)
        route = route_of(self.scope["path"])
        self._count(route, status, facts)
        is_keyless = status < 500 and not facts.get("key_prefix")  # 5xx: MongoDB may be away, and nobody knows the key
        if is_keyless and not self._keyless.take():
            return None
        event = self._event(route, status, facts, first_byte_s=self._first_byte_s, bytes_sent=self._bytes)
        return self._writer.make_payload(event)

    def _count(self, route: str, status: int, facts: dict[str, Any]) -> None:
        self._counters.answered(
            route=route,
            status=status,
            kind=self._kind,
            tier=facts.get("tier"),
            error=facts.get("error"),
            first_byte_s=self._first_byte_s,
        )
        if facts.get("key_prefix") and self._kind == "api":
            self._counters.users.seen(user_id(facts["key_prefix"], _address(self.scope)), Activity.API)

    def _stop_streaming(self) -> None:
        if self._streaming_user:
            self._counters.open[Activity.STREAM] -= 1
            self._counters.users.closed(self._streaming_user, Activity.STREAM)
            self._streaming_user = ""

    def _user(self) -> str:
        return user_id(noted(self.scope).get("key_prefix"), _address(self.scope))

    def _event(
        self, route: str, status: int, facts: dict[str, Any], *, first_byte_s: float | None, bytes_sent: int
    ) -> dict[str, Any]:
        return {
            **({"id": self._event_id} if self._event_id else {}),
            "at": time.time(),
            "route": route,
            "method": self.scope["method"],
            "status": status,
            "first_byte_s": first_byte_s,
            "duration_s": time.monotonic() - self._started,
            "bytes_sent": bytes_sent,
            **{name: facts[name] for name in TRACE_FIELDS if facts.get(name)},
        }


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
