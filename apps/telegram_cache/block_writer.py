"""Has the blocks of a download verified and written in threads, while the next ones arrive."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from apps.streaming.errors import disk_full
from apps.streaming.hotstore import HotStoreFull
from apps.telegram_cache.documents import BLOCK_BYTES
from apps.telegram_cache.flights import Flight
from apps.telegram_cache.services.eviction import make_room_now

BUFFERS = 3  # one fills up while one is hashed and one is written


def put_block(flight: Flight, block: int, data: memoryview) -> None:
    """Check and write one block, unless it is there. Room is made for it if it takes that. Raises WrongBlock, or
    Overloaded when there is none to be made."""
    if flight.hot_file.has_block(block):
        return
    for _ in range(2):
        with suppress(HotStoreFull):
            flight.hot_file.put_block(block, data, sha256=flight.target.block_hashes[block])
            return
        if not make_room_now():
            break
    # Not where it was caught: that error knows the file, whose bytes would stay on the disk as long as this one lives.
    raise disk_full()


class BlockTaker:
    """Takes whole blocks in order, in the thread that receives them. Whoever waits is woken after each."""

    def __init__(self, flight: Flight, loop: asyncio.AbstractEventLoop) -> None:
        self._flight = flight
        self._loop = loop
        self._block = flight.stretch.first_block

    def take(self, data: memoryview) -> None:
        """Raises WrongBlock or Overloaded (a full disk)."""
        put_block(self._flight, self._block, data)
        self._block += 1
        if self._flight.has_waiters:
            self._loop.call_soon_threadsafe(self._flight.progressed)


class BlockWriter:
    """The blocks of one download, in order. At most BUFFERS of them are in memory."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._block = flight.stretch.first_block
        self._filled = 0
        self._buffer = memoryview(bytearray(BLOCK_BYTES))
        self._made = 1
        self._writing: list[asyncio.Task[memoryview]] = []

    async def take(self, piece: bytes) -> bool:
        """Add what has arrived; True when the stretch is complete. Raises WrongBlock or Overloaded (a full disk)."""
        rest = memoryview(piece)
        while rest and self._block < self._flight.stretch.stop_block:
            count = min(len(rest), self._size() - self._filled)
            self._buffer[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
            if self._filled == self._size():
                await self._hand_over()
        return self._block >= self._flight.stretch.stop_block

    def _size(self) -> int:
        return min(BLOCK_BYTES, (self._flight.target.size_bytes or 0) - self._block * BLOCK_BYTES)

    async def _hand_over(self) -> None:
        full, size, block = self._buffer, self._filled, self._block
        self._writing.append(asyncio.create_task(self._put(block, full, size)))
        self._block += 1
        self._filled = 0
        if self._block < self._flight.stretch.stop_block:
            self._buffer = await self._next_buffer()

    async def _next_buffer(self) -> memoryview:
        if self._made < BUFFERS:
            self._made += 1
            return memoryview(bytearray(BLOCK_BYTES))
        return await self._writing.pop(0)

    async def finish(self) -> None:
        """Wait until all that was handed over is written. Raises what went wrong."""
        try:
            while self._writing:
                await self._writing.pop(0)
        finally:
            await self.settle()

    async def settle(self) -> None:
        """Wait until no thread works on it any more, whatever came of it: the locks may be given up then."""
        if self._writing:
            await asyncio.wait(self._writing)
        for task in self._writing:
            if not task.cancelled():
                task.exception()  # another error has come out
        self._writing.clear()

    async def _put(self, block: int, buffer: memoryview, size: int) -> memoryview:
        flight = self._flight
        await asyncio.to_thread(put_block, flight, block, buffer[:size])
        flight.progressed()
        return buffer
