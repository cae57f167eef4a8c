"""Websockets of the admin: the same people and roles as its pages, checked at the start and again while open."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.cookies import CookieError, SimpleCookie
from typing import Any, ClassVar

import redis
import structlog
from django.conf import settings
from pymongo.errors import PyMongoError

from apps.core.asgi import Scope, header
from apps.core.websockets import BoundedConsumer
from apps.keys.documents import Role, User
from apps.keys.roles import may
from apps.keys.sessions import user_of_session_key

LOGGED_OUT, FORBIDDEN, AWAY = 4401, 4403, 1001
RECHECK_S = 5.0
THREADS = 2
MAX_OPEN = 200  # of one consumer class in this process

log = structlog.get_logger(__name__)


class AdminConsumer(BoundedConsumer):
    """Base of the admin's websockets. Override ``run``, which sends until it returns or is cancelled.

    ``required_role`` is what the logged-in person needs. Close codes: 4401 nobody is logged in (any more), 4403 the
    role is too low, 4429 too many are open, 1001 MongoDB or Redis is away. Who is logged out, switched off or loses the
    role is cut off within RECHECK_S. Own pages only: list it under ``websocket_urlpatterns``, which checks the Origin.
    """

    required_role: ClassVar[Role] = Role.VIEWER
    admin_user: User

    async def run(self) -> None:
        raise NotImplementedError

    async def connect(self) -> None:
        await self.begin(self._live, most=MAX_OPEN)

    async def _live(self) -> None:
        code = await self._refusal()
        if code is None:
            code = await self._watch(self.add_task(self.run()))
        await self.close(code)

    async def _watch(self, run: asyncio.Task[None]) -> int:
        """Until ``run`` ends or the person may not look any more; the close code."""
        while True:
            await asyncio.wait((run,), timeout=RECHECK_S)
            if run.done():
                return _code_of(run)
            refusal = await self._refusal()
            if refusal is not None:
                run.cancel()
                return refusal

    async def _refusal(self) -> int | None:
        """The close code for somebody who may not be here; None: go on."""
        try:
            user = await _in_thread(session_key_of(self.scope))
        except (PyMongoError, redis.RedisError) as error:
            log.warning("admin websocket ends: a service is away", reason=type(error).__name__)
            return AWAY
        if user is None:
            return LOGGED_OUT
        self.admin_user = user
        return None if may(user, self.required_role) else FORBIDDEN


def _code_of(run: asyncio.Task[None]) -> int:
    error = None if run.cancelled() else run.exception()
    if error is None:
        return 1000
    log.error("admin websocket failed", exc_info=error)
    return AWAY


def session_key_of(scope: Scope) -> str:
    """The session key in the cookies of a websocket's handshake; empty without one."""
    try:
        cookies = SimpleCookie(header(scope, b"cookie") or "")
    except CookieError:
        return ""
    morsel: Any = cookies.get(settings.SESSION_COOKIE_NAME)
    return str(morsel.value) if morsel else ""


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="admin-websockets")


async def _in_thread(session_key: str) -> User | None:
    return await asyncio.get_running_loop().run_in_executor(_threads(), user_of_session_key, session_key)
