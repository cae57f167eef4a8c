"""The way of events into Redis: simultaneous ones go together; what Redis did not take is kept and sent again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from contextlib import suppress
from itertools import count
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from apps.analytics.events import APPEND_SCRIPT, APPEND_SHA, APPEND_WORDS, event_payload

logger = logging.getLogger(__name__)

BATCH = 500
RETRY_S = 0.5
MAX_KEPT = 200_000  # about 100 MB; Redis is away for long when it comes to that
CLOSING_S = 3.0


class EventWriter:
    """Appends events. Belongs to one event loop.

    ``append`` returns once Redis has the event. While Redis is away it returns at once: the event is kept in memory
    and sent as soon as Redis is back. Only a process that is killed in that time, or more than MAX_KEPT, loses events.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._kept: deque[str] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._away = False
        self._process = secrets.token_hex(6)
        self._numbers = count(1)

    def make_payload(self, event: dict[str, Any]) -> str:
        """The event as text, with an id of its own if it has none."""
        return event_payload({"id": self.make_id(), **event})

    def make_id(self) -> str:
        return f"{self._process}-{next(self._numbers)}"

    async def append(self, payload: str) -> None:
        """Return when Redis has it, or at once while Redis is away. Raises nothing."""
        if self._away:
            self._keep(payload)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((payload, future))
        self._start()
        await future

    async def aclose(self) -> None:
        """Send what is left, for CLOSING_S at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                while self._sender is not None and not self._sender.done():
                    await asyncio.wait([self._sender])
        if self._sender is not None:
            self._sender.cancel()
        if self._kept:
            logger.error("events lost: the server stopped while Redis was away", extra={"count": len(self._kept)})

    def _keep(self, payload: str) -> None:
        if len(self._kept) >= MAX_KEPT:
            logger.error("event lost: Redis is away for too long")
            return
        self._kept.append(payload)

    def _start(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all(), name="event-writer")

    async def _send_all(self) -> None:
        while self._waiting or self._kept:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            kept = [self._kept.popleft() for _ in range(min(BATCH - len(batch), len(self._kept)))]
            try:
                await self._send([*kept, *(payload for payload, _ in batch)])
            except (redis.RedisError, OSError) as error:
                if not self._away:
                    logger.warning("events wait in memory: Redis is away", extra={"reason": type(error).__name__})
                self._away = True
                self._kept.extendleft(reversed(kept))
                for payload, _ in [*batch, *self._waiting]:
                    self._keep(payload)
                for _, future in [*batch, *self._waiting]:
                    _finish(future)
                self._waiting.clear()
                await asyncio.sleep(RETRY_S)
            else:
                self._away = False
                for _, future in batch:
                    _finish(future)

    async def _send(self, payloads: list[str]) -> None:
        """Half of them may be appended when it fails: their ids tell them apart when they are sent again."""
        pending: Any
        try:
            pending = self._client.evalsha(APPEND_SHA, 0, APPEND_WORDS, *payloads)
            await pending
        except NoScriptError:
            pending = self._client.eval(APPEND_SCRIPT, 0, APPEND_WORDS, *payloads)
            await pending


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
