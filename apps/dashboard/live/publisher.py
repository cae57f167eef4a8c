"""Sends the moment to all who look, each second: of all web processes one does it, and only while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import redis.asyncio
from channels.layers import get_channel_layer
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from apps.core.redis import make_async_redis
from apps.dashboard.live.moment import moment_text

GROUP = "dashboard-live"
LEASE_KEY = "yt:live:publisher"
LEASE_MS = 3000
PERIOD_S = 1.0

logger = logging.getLogger(__name__)

# The lease belongs to who holds it or, once it has run out, to who asks first. ARGV: owner, milliseconds.
_TAKE = """
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if owner then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Publisher:
    """This process's candidate. It runs while somebody looks through this process; whoever holds the lease publishes.

    ``read`` gives the text of the moment, in a thread. Not thread-safe: use it from its own loop only.
    """

    def __init__(self, read: Callable[[], str] = moment_text) -> None:
        self._read = read
        self._owner = secrets.token_hex(8)
        self._viewers = 0
        self._task: asyncio.Task[None] | None = None

    def enter(self) -> None:
        """Somebody more looks."""
        self._viewers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="live-publisher")

    def leave(self) -> None:
        """Somebody stopped looking; after the last one nothing is read or sent any more."""
        self._viewers -= 1
        if self._viewers <= 0 and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="live-publisher")
        try:
            async with make_async_redis() as client:
                try:
                    while self._task is asyncio.current_task():  # libraries in between may swallow a cancellation
                        started = loop.time()
                        try:
                            if await self._holds_lease(client):
                                text = await loop.run_in_executor(thread, self._read)
                                await _send(text)
                        except (RedisError, PyMongoError, OSError) as error:
                            logger.warning("no live figures: %s", type(error).__name__)
                        except Exception:  # one moment that cannot be read must not end all later ones
                            logger.exception("the live figures could not be read")
                        await asyncio.sleep(max(0.1, PERIOD_S - (loop.time() - started)))
                finally:
                    with suppress(RedisError, OSError):
                        await client.eval(_GIVE_BACK, 1, LEASE_KEY, self._owner)
        finally:
            thread.shutdown(wait=False)

    async def _holds_lease(self, client: redis.asyncio.Redis) -> bool:
        return bool(await client.eval(_TAKE, 1, LEASE_KEY, self._owner, str(LEASE_MS)))


async def _send(text: str) -> None:
    layer: Any = get_channel_layer()
    await layer.group_send(GROUP, {"type": "live.moment", "text": text})


_publishers: WeakKeyDictionary[asyncio.AbstractEventLoop, Publisher] = WeakKeyDictionary()


def publisher() -> Publisher:
    """The publisher of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _publishers.get(loop)
    if found is None:
        found = _publishers[loop] = Publisher()
    return found
