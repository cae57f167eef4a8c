"""ASGI middleware that records every API call and every stream as one event."""

from __future__ import annotations

import time
from typing import Any

import redis.asyncio

from apps.analytics.events import append_event
from apps.core.asgi import AsgiApp, Message, Receive, Scope, Send
from apps.core.redis import make_async_redis
from apps.core.trace import noted

RECORDED_PATHS = ("/api/v1/", "/stream/")
CLIENT_LEFT = 499
TRACE_FIELDS = ("key_prefix", "video_id", "asset_id", "tier", "error")


def route_of(path: str) -> str:
    """The route without ids, so that events of one route add up: ``/stream/video``, ``/api/v1/jobs``."""
    depth = 3 if path.startswith("/stream/") else 4
    return "/".join(path.split("/")[:depth])


class EventRecorder:
    """Wraps the whole application. An answer's last bytes wait for its event, so what was answered was counted."""

    def __init__(self, app: AsgiApp) -> None:
        self.app = app
        self._redis: redis.asyncio.Redis | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(RECORDED_PATHS):
            await self.app(scope, receive, send)
            return
        await _Recording(scope, send, self._client()).run(self.app, receive)

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
    def __init__(self, scope: Scope, send: Send, client: redis.asyncio.Redis) -> None:
        self.scope = scope
        self._send = send
        self._client = client
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
                self._recorded = True
                await append_event(self._client, self._event(CLIENT_LEFT))

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            if self._first_byte_s is None:
                self._first_byte_s = time.monotonic() - self._started
            self._bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._recorded = True
                await append_event(self._client, self._event(self._status))
        await self._send(message)

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
