"""Which pages of other sites may read answers: each key names their origins. For the API and the streams alike.

Cookies are never allowed across sites (there is no Access-Control-Allow-Credentials), so only keys and signed links
count. A browser asks before (preflight) without the key: it is told yes when any key allows the origin, and the
answer itself is readable only when the key that was used does. Errors without a good key are readable for such an
origin too, so that a page learns what is wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial

import structlog
from pymongo.errors import PyMongoError

from apps.core.asgi import AsgiApp, Message, Receive, Scope, Send, header
from apps.core.trace import noted
from apps.keys.selectors import origins_by_key

ANY = "*"
MAX_AGE_S = 0.8  # as KeyGrants: a change counts in every process within a second
PREFLIGHT_MAX_AGE_S = 600
PATHS = ("/api/", "/stream/", "/song/", "/video/", "/youtube/", "/queued/")
ALLOWED_METHODS = "GET, HEAD, POST, PATCH, DELETE"
ALLOWED_HEADERS = "Authorization, Content-Type, If-Match, If-None-Match, If-Range, Range, X-API-Key, X-Request-Id"
EXPOSED_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, RateLimit-Limit, RateLimit-Remaining, "
    "RateLimit-Reset, Retry-After, X-Request-Id"
)

log = structlog.get_logger(__name__)


class Cors:
    """ASGI application around another one. Requests without an Origin header cost nothing more."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._origins: Mapping[str, frozenset[str]] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, b"origin")
        if origin is None or not scope["path"].startswith(PATHS):
            await self._app(scope, receive, send)
            return
        await self._refresh()
        if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method"):
            await self._answer_preflight(origin, send)
            return
        await self._app(scope, receive, partial(self._send, scope, origin, send))

    async def _send(self, scope: Scope, origin: str, send: Send, message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(b"vary", b"Origin")]
            if self._may_read(origin, noted(scope).get("key_prefix")):
                extra.append((b"access-control-allow-origin", origin.encode("latin-1")))
                extra.append((b"access-control-expose-headers", EXPOSED_HEADERS.encode()))
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    async def _answer_preflight(self, origin: str, send: Send) -> None:
        headers = [(b"vary", b"Origin"), (b"content-length", b"0")]
        if self._may_read(origin, None):
            headers += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-allow-methods", ALLOWED_METHODS.encode()),
                (b"access-control-allow-headers", ALLOWED_HEADERS.encode()),
                (b"access-control-max-age", str(PREFLIGHT_MAX_AGE_S).encode()),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _may_read(self, origin: str, prefix: str | None) -> bool:
        """Whether this key allows the origin; without a key: whether any key does."""
        if prefix is None:
            return any(origin in allowed or ANY in allowed for allowed in self._origins.values())
        allowed = self._origins.get(prefix, frozenset())
        return origin in allowed or ANY in allowed

    async def _refresh(self) -> None:
        async with self._reading:
            now = time.monotonic()
            if now - self._read_at < MAX_AGE_S:
                return
            try:
                self._origins = await asyncio.to_thread(origins_by_key)
            except PyMongoError as error:
                log.warning("origins of keys cannot be read", reason=type(error).__name__)
            self._read_at = now
