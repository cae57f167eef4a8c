"""The websocket of the live dashboard: for people who are logged in, for as long as they are."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.http import HttpRequest
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from apps.dashboard.access import may
from apps.dashboard.live.moment import history_text
from apps.dashboard.live.publisher import GROUP, publisher
from apps.keys.documents import Role
from apps.keys.sessions import user_of_session

RECHECK_S = 2.0
MAX_OPEN = 200  # in this process
THREADS = 2
AWAY, LOGGED_OUT, WRONG_PAGE, BUSY = 1001, 4401, 4403, 4429

logger = logging.getLogger(__name__)


class LiveConsumer(AsyncWebsocketConsumer):
    """``/ws/admin/live``: the last hour at once, then every second the moment.

    Close codes: 1001 ask again, 4401 nobody is logged in (any more), 4403 opened by a page of somebody else, 4429 too
    many open. What a client says is not listened to.
    """

    open_now: ClassVar[int] = 0

    async def connect(self) -> None:
        self._counted = False
        self._task: asyncio.Task[None] | None = None
        await self.accept()  # else the page would only see HTTP 403, whatever the reason
        if not _is_own_page(self.scope):
            await self.close(WRONG_PAGE)
            return
        if LiveConsumer.open_now >= MAX_OPEN:
            await self.close(BUSY)
            return
        LiveConsumer.open_now += 1
        self._counted = True
        self._task = asyncio.create_task(self._run())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Nothing is asked this way."""

    async def disconnect(self, code: int) -> None:
        if self._counted:
            self._counted = False
            LiveConsumer.open_now -= 1
        if self._task is not None:
            self._task.cancel()

    async def live_moment(self, message: dict[str, Any]) -> None:
        """From the publisher, wherever it runs."""
        await self.send(text_data=message["text"])

    async def _run(self) -> None:
        try:
            code = await self._follow()
        except (PyMongoError, RedisError, OSError) as error:
            logger.warning("live websocket ends: %s", type(error).__name__)
            code = AWAY
        await self.close(code)

    async def _follow(self) -> int:
        session_key = session_key_of(self.scope)
        if not await _in_thread(is_logged_in, session_key):
            return LOGGED_OUT
        await self.send(text_data=await _in_thread(history_text))
        await self.channel_layer.group_add(GROUP, self.channel_name)
        publisher().enter()
        try:
            while await _in_thread(is_logged_in, session_key):  # noqa: ASYNC110 - the end of a session is not told
                await asyncio.sleep(RECHECK_S)
            return LOGGED_OUT
        finally:
            publisher().leave()
            await self.channel_layer.group_discard(GROUP, self.channel_name)


def session_key_of(scope: Any) -> str:
    """The session's key in the cookies; "" when there is none."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookies.load(value.decode("latin-1"))
    except CookieError:
        return ""
    morsel = cookies.get(settings.SESSION_COOKIE_NAME)
    return morsel.value if morsel else ""


def is_logged_in(session_key: str) -> bool:
    """Whether the session is somebody's who may enter the admin, right now. Raises RedisError, PyMongoError."""
    if not session_key:
        return False
    store = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    request = cast("HttpRequest", SimpleNamespace(session=store))
    return may(user_of_session(request), Role.VIEWER)


def _is_own_page(scope: Any) -> bool:
    """Whether the page that opens the socket came from the very address that it calls, or from PUBLIC_URL.

    ALLOWED_HOSTS (checked before) says nothing of ports, and cookies neither.
    """
    headers = dict(scope["headers"])
    origin = urlsplit(headers.get(b"origin", b"").decode("latin-1"))
    own = {headers.get(b"host", b"").decode("latin-1").lower(), urlsplit(settings.ENV.base_url).netloc.lower()}
    return origin.netloc.lower() in own - {""}


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="live-websockets")


async def _in_thread(work: Any, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_threads(), work, *arguments)
