"""Waking whoever waits for something that another process does: one Redis message for each change of a topic.

Messages can be lost (Redis away, a connection cut): whoever waits looks again at least once a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import suppress
from weakref import WeakKeyDictionary

import redis.asyncio
from redis.exceptions import RedisError

from apps.core.redis import make_async_redis, redis_client

TOPIC_PREFIX = "yt:wake:"
RECENT_TOPICS = 10_000
RETRY_S = 0.5
QUIET_POLL_S = 1.0

logger = logging.getLogger(__name__)


def publish(topic: str) -> None:
    """Wake everybody, in every process, who waits for ``topic``. Raises nothing: without Redis nobody is woken."""
    try:
        redis_client().publish(f"{TOPIC_PREFIX}{topic}", b"1")
    except RedisError as error:
        logger.warning("a wake-up was not sent: %s", type(error).__name__)


def wait(topic: str, *, timeout_s: float) -> bool:
    """Block this thread until ``topic`` is published: True; or ``timeout_s`` has passed, or Redis is away: False.

    Look at the state again in either case: what was published before the call is not seen.
    """
    deadline = time.monotonic() + timeout_s
    try:
        with redis_client().pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(f"{TOPIC_PREFIX}{topic}")
            while (left_s := deadline - time.monotonic()) > 0:
                if subscription.get_message(timeout=left_s) is not None:  # None also for the subscription's own echo
                    return True
    except RedisError:
        time.sleep(max(0.0, min(RETRY_S, deadline - time.monotonic())))  # so that callers' loops do not spin
    return False


class WakeHub:
    """Waiting on an event loop: any number of waiters share one Redis connection, which hears every topic.

    It starts with the first waiter; ``aclose`` ends it. Not thread-safe: use it from its own loop only.
    """

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Future[bool]]] = {}
        self._recent: OrderedDict[str, float] = OrderedDict()
        self._reader: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._stopping = False

    async def start(self) -> None:
        """Begin to listen. Idempotent; returns at once, also while Redis is away."""
        if self._reader is None or self._reader.done():
            self._stopping = False
            self._reader = asyncio.create_task(self._listen(), name="wake-hub")

    async def aclose(self) -> None:
        """Stop listening; everybody who waits is let go with False.

        The Redis library can swallow a cancellation that comes while an answer does: then it takes QUIET_POLL_S.
        """
        self._stopping = True
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        for topic in list(self._waiters):
            self._wake(topic, published=False)

    async def wait(self, topic: str, *, timeout_s: float, since: float | None = None) -> bool:
        """Until ``topic`` is published (True) or ``timeout_s`` has passed (False).

        ``since`` (time.monotonic()): what was published from then on counts as well, so that nothing is missed
        between looking at the state and waiting.
        """
        await self.start()
        if since is not None and self._recent.get(topic, float("-inf")) >= since:
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(topic, set()).add(waiter)
        try:
            async with asyncio.timeout(timeout_s):  # wait_for forgets a cancellation that comes with the word
                return await waiter
        except TimeoutError:
            return False
        finally:
            waiters = self._waiters.get(topic)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[topic]

    async def until_listening(self, *, timeout_s: float) -> bool:
        """Whether the hub hears Redis; waits for it up to ``timeout_s``."""
        await self.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._listening.wait()
        return self._listening.is_set()

    def wake(self, topic: str) -> None:
        """Wake who waits for ``topic`` on this loop, as if it had been published."""
        self._wake(topic, published=True)

    def _wake(self, topic: str, *, published: bool) -> None:
        for waiter in self._waiters.pop(topic, ()):
            if not waiter.done():
                waiter.set_result(published)

    async def _listen(self) -> None:
        while not self._stopping:
            async with make_async_redis(retries=0) as client:
                try:
                    await self._hear(client)
                except (RedisError, OSError) as error:
                    logger.warning("wake-ups are not heard: %s", type(error).__name__)
                finally:
                    self._listening.clear()
            await asyncio.sleep(RETRY_S)

    async def _hear(self, client: redis.asyncio.Redis) -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.psubscribe(f"{TOPIC_PREFIX}*")
            await subscription.get_message(timeout=QUIET_POLL_S)
            self._listening.set()
            for topic in list(self._waiters):  # they may have missed something while nobody listened
                self._wake(topic, published=True)
            while not self._stopping:
                message = await subscription.get_message(timeout=QUIET_POLL_S)
                if message is not None:
                    self._note(message["channel"].decode().removeprefix(TOPIC_PREFIX))

    def _note(self, topic: str) -> None:
        self._recent[topic] = time.monotonic()
        self._recent.move_to_end(topic)
        if len(self._recent) > RECENT_TOPICS:
            self._recent.popitem(last=False)
        self._wake(topic, published=True)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, WakeHub] = WeakKeyDictionary()


def wake_hub() -> WakeHub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = WakeHub()
    return hub
