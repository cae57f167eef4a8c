"""Whose turn it is to send more, among streams that have begun."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """One in each pass of the event loop: between any two, new requests get on and waiting ones have their first bytes.

    Belongs to one event loop. While nothing else goes on, passes follow each other at once.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Until it is the caller's turn, in the order of the calls."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # whose stream has ended meanwhile
                turn.set_result(None)
                break
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._give)
