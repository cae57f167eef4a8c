"""ASGI middleware that records every API call and every stream as one event."""

from __future__ import annotations

import time
from typing import Any

import redis.asyncio
from django.urls import Resolver404, resolve

from apps.analytics.events import append_event
from apps.core.asgi import AsgiApp, Message, Receive, Scope, Send
from apps.core.redis import make_async_redis
from apps.core.trace import noted

STREAM_KINDS = frozenset({"video", "audio"})
DIALECT_PATHS = ("/song/", "/video/", "/api/track", "/api/song", "/youtube/", "/queued/youtube/")
RECORDED_PATHS = ("/api/v1/", "/stream/", *DIALECT_PATHS)
CLIENT_LEFT = 499
KEYLESS_BURST = 100
KEYLESS_PER_S = 2.0
NO_ROUTE = "*"
TRACE_FIELDS = ("key_prefix", "video_id", "asset_id", "tier", "error")


def route_of(path: str) -> str:
    """The route without ids, so that events of one route add up: ``/stream/video``, ``/api/v1/jobs``.

    What is no route of ours adds up under ``*``: strangers must not fill the statistics with names that they make up.
    """
    if path.startswith("/stream/"):
        kind = path.split("/")[2]
        return f"/stream/{kind if kind in STREAM_KINDS else NO_ROUTE}"
    try:
        resolve(path)
    except Resolver404:
        return f"/api/v1/{NO_ROUTE}"
    depth = 2 if path.startswith(("/song/", "/video/")) else 4
    return "/".join(path.split("/")[:depth])


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

    Of requests without a good key only KEYLESS_BURST, then KEYLESS_PER_S, are kept in each process: events stay for
    months, and a stranger could fill the disk with them.
    """

    def __init__(self, app: AsgiApp) -> None:
        self.app = app
        self._redis: redis.asyncio.Redis | None = None
        self._keyless = _Allowance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(RECORDED_PATHS):
            await self.app(scope, receive, send)
            return
        await _Recording(scope, send, self._client(), self._keyless).run(self.app, receive)

    async def close(self) -> None:
        """Give the Redis connections back; the server is stopping."""
        if self._redis is not None:
            await self._redis.aclose()
            self._redis = None

    def _client(self) -> redis.asyncio.Redis:
        if self._redis is None:
            self._redis = make_async_redis()
        return self._redis


class _Recording:
    def __init__(self, scope: Scope, send: Send, client: redis.asyncio.Redis, keyless: _Allowance) -> None:
        self.scope = scope
        self._send = send
        self._client = client
        self._keyless = keyless
        self._started = time.monotonic()
        self._first_byte_s: float | None = None
        self._status = 0
        self._bytes = 0
        self._recorded = False

    async def run(self, app: AsgiApp, receive: Receive) -> None:
        try:
            await app(self.scope, receive, self.send)
        finally:
            if not self._recorded:  # the client left, or the stream was broken off
                await self._record(CLIENT_LEFT)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            if self._first_byte_s is None:
                self._first_byte_s = time.monotonic() - self._started
            self._bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                await self._record(self._status)
        await self._send(message)

    async def _record(self, status: int) -> None:
        self._recorded = True
        if noted(self.scope).get("key_prefix") or self._keyless.take():
            await append_event(self._client, self._event(status))

    def _event(self, status: int) -> dict[str, Any]:
        facts = noted(self.scope)
        return {
            "at": time.time(),
            "route": route_of(self.scope["path"]),
            "method": self.scope["method"],
            "status": status,
            "first_byte_s": self._first_byte_s,
            "duration_s": time.monotonic() - self._started,
            "bytes_sent": self._bytes,
            **{name: facts[name] for name in TRACE_FIELDS if facts.get(name)},
        }
