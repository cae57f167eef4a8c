"""A thread pool that grows while its work waits for something, and shrinks while its work computes.

Threads that compute only contend for the interpreter: more of them answer no more requests, and everybody waits longer
for a turn, the event loop too. Threads that wait for MongoDB or Redis cost nothing, and with few of them a database
that is 20 ms away would hold a process to some dozens of requests a second. Two signs tell them apart: whether the
process uses most of a processor, and how late the event loop comes when a result is ready (at once when the threads
wait; after the interpreter's switch interval or more when they compute, also where others take the processors).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

GROW_EVERY_S = 0.025
BUSY_SHARE = 0.8  # of one processor: the interpreter computes in one thread at a time


class AdaptiveThreads:
    """Runs functions in threads: ``least`` at a time, and up to ``most`` while they mostly wait.

    What finds no thread queues, in order. What is run ``again`` has a line of its own, and the two lines take turns:
    neither holds the other up. Belongs to one event loop.
    """

    def __init__(self, *, least: int, most: int, name: str) -> None:
        self.size = least
        self._least = least
        self._most = most
        self._busy = 0
        self._new: deque[asyncio.Future[None]] = deque()
        self._again: deque[asyncio.Future[None]] = deque()
        self._is_turn_of_again = False
        self._growing: asyncio.TimerHandle | None = None
        self._late_s = sys.getswitchinterval()
        self._is_closed = False
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(self, function: Callable[..., Result], *arguments: object, again: bool = False) -> Result:
        """What the function gives. Raises what it raises, and CancelledError after ``close``."""
        await self._take_place(self._again if again else self._new)
        try:
            self._raise_if_closed()  # it may have been, since the place was given
            loop = asyncio.get_running_loop()
            result, ended_at = await loop.run_in_executor(self._pool, _timed, function, arguments)
            self._note_lateness(time.monotonic() - ended_at)
            return result
        finally:
            self._busy -= 1
            self._admit()

    def close(self) -> None:
        """What runs comes to its end; what queues is dropped, and so is what comes later."""
        self._is_closed = True
        for place in (*self._new, *self._again):
            place.cancel()
        if self._growing is not None:
            self._growing.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _take_place(self, line: deque[asyncio.Future[None]]) -> None:
        self._raise_if_closed()
        if self._busy < self.size and not self._new and not self._again:
            self._busy += 1
            return
        place = asyncio.get_running_loop().create_future()
        line.append(place)
        if self._growing is None:
            self._grow_later()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given in the same moment
                self._busy -= 1
                self._admit()
            raise

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise asyncio.CancelledError

    def _admit(self) -> None:
        while (self._new or self._again) and self._busy < self.size:
            line = self._again if self._again and (self._is_turn_of_again or not self._new) else self._new
            place = line.popleft()
            if not place.done():
                self._is_turn_of_again = line is self._new
                self._busy += 1
                place.set_result(None)

    def _note_lateness(self, late_s: float) -> None:
        if late_s >= self._late_s:
            self.size -= (self.size - self._least + 1) // 2

    def _grow_later(self) -> None:
        now, used_s = time.monotonic(), time.process_time()
        self._growing = asyncio.get_running_loop().call_later(GROW_EVERY_S, self._grow, now, used_s)

    def _grow(self, began_at: float, used_before_s: float) -> None:
        self._growing = None
        if not self._new and not self._again:
            return
        took_s = time.monotonic() - began_at
        is_busy = time.process_time() - used_before_s > BUSY_SHARE * took_s
        if not is_busy and took_s < GROW_EVERY_S + self._late_s:
            self.size = min(self._most, self.size + max(1, self.size // 4))
            self._admit()
        self._grow_later()


def _timed(function: Callable[..., Result], arguments: tuple[object, ...]) -> tuple[Result, float]:
    """The result, and when it was ready (``time.monotonic``)."""
    return function(*arguments), time.monotonic()
