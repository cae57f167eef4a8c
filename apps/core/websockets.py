"""What all websockets have in common: a bounded number of places, and nothing left behind when one ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import ClassVar

from channels.generic.websocket import AsyncWebsocketConsumer

from apps.core.asgi import Receive, Scope, Send

BUSY = 4429  # the close code when there is no place


class BoundedConsumer(AsyncWebsocketConsumer):
    """Base of the websockets: call ``begin`` in ``connect``.

    However a websocket ends, its place is given back and its tasks are cancelled, once: in ``disconnect``, as Channels
    may then wait long for its own reading from Redis to end; and at the end of the call, as Channels leaves
    ``disconnect`` out when Redis goes away in between.
    """

    open_now: ClassVar[int] = 0  # of one consumer class in this process

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._has_place = False
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._give_back()
            await asyncio.gather(*self._tasks, return_exceptions=True)  # what they tidy up needs the event loop

    async def disconnect(self, code: int) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._has_place:
            self._has_place = False
            type(self).open_now -= 1
        for task in self._tasks:
            task.cancel()

    async def begin(self, work: Callable[[], Coroutine[None, None, None]], *, most: int) -> None:
        """Accept, and do ``work`` until the websocket ends. Closes with BUSY when ``most`` are open."""
        await self.accept()  # else the client would only see HTTP 403, whatever the reason
        if type(self).open_now >= most:
            await self.close(BUSY)
            return
        type(self).open_now += 1
        self._has_place = True
        self.add_task(work())

    def add_task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start what is cancelled when the websocket ends."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """What a client says is not listened to."""
