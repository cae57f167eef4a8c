"""Work that follows a growing file in threads: its bytes are hashed, and made durable, while more arrive.

Bytes are read to be hashed, not mapped: a mapping of bytes that the disk cannot read, or of a file that somebody cut
short, would end the whole process. Read in small pieces, they cost a seventh more than hashing alone.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from apps.streaming.hotstore.blockmap import BlockMap
from apps.streaming.hotstore.layout import BLOCK_BYTES, OwnedFd

MAX_THREADS = 16  # of this process, for all files
PIECE_BYTES = 128 * 1024  # a larger one leaves the processor's fast cache before it is hashed
_threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="hotstore")  # starts none before it is needed


class Follower:
    """Does ``step(start, stop)`` over the bytes of one file: in order, in one thread at a time, ``step_bytes`` at most.

    Nothing is queued: it knows only how far it has come and how far it may go.
    """

    def __init__(self, step: Callable[[int, int], None], *, step_bytes: int) -> None:
        self._step = step
        self._step_bytes = step_bytes
        self._done = self._target = 0
        self._lock = threading.Lock()
        self._running: Future[None] | None = None

    @property
    def target(self) -> int:
        return self._target

    def begin_at(self, offset: int) -> None:
        """What lies before was done elsewhere. Before the first ``advance``."""
        self._done = self._target = offset

    def advance(self, target: int) -> None:
        """The bytes before ``target`` are there. Raises what a step has raised."""
        with self._lock:
            if self._running is not None and self._running.done():
                self._running.result()
            self._target = max(self._target, target)
            if self._running is None and self._done < self._target:
                self._running = _threads.submit(self._run)

    def _run(self) -> None:
        while True:
            with self._lock:
                start, stop = self._done, min(self._target, self._done + self._step_bytes)
                if start >= stop:
                    self._running = None
                    return
            self._step(start, stop)
            self._done = stop

    def catch_up(self, target: int) -> None:
        """As ``advance``, and wait until it is done."""
        self.advance(target)
        running = self._running
        if running is not None:
            running.result()

    def give_up(self) -> None:
        """Do no more than the step that is being done. Does not wait for it."""
        with self._lock:
            self._target = self._done


class WholeHash:
    """SHA-256 of a file's bytes."""

    def __init__(self, data: OwnedFd) -> None:
        self._data = data
        self._sha256 = hashlib.sha256()
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def follow(self, start: int, stop: int) -> None:
        """Step of a Follower, a block at most."""
        for piece in _pieces(self._buffer, self._data, start, stop):
            self._sha256.update(piece)

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


class BlockHashes:
    """SHA-256 of each of a file's blocks."""

    def __init__(self, data: OwnedFd) -> None:
        self._data = data
        self._whole_blocks: list[bytes] = []
        self._block = hashlib.sha256()
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def follow(self, start: int, stop: int) -> None:
        """Step of a Follower, a block at most: of two blocks where the file was gone on with in the middle of one."""
        while start < stop:
            block_stop = min(stop, start - start % BLOCK_BYTES + BLOCK_BYTES)
            for piece in _pieces(self._buffer, self._data, start, block_stop):
                self._block.update(piece)
            start = block_stop
            if start % BLOCK_BYTES == 0:
                self._whole_blocks.append(self._block.digest())
                self._block = hashlib.sha256()

    def digests(self, size_bytes: int) -> tuple[bytes, ...]:
        """Of a file of this size, all of which was followed."""
        last = (self._block.digest(),) if size_bytes % BLOCK_BYTES else ()
        return (*self._whole_blocks, *last)


def make_durable(data: OwnedFd, block_map: BlockMap, _start: int, stop: int) -> None:
    """Step of a Follower, any number of bytes."""
    os.fdatasync(data.number)
    block_map.durable = max(stop, block_map.durable)


def _pieces(buffer: memoryview, data: OwnedFd, start: int, stop: int) -> Iterator[memoryview]:
    """The bytes [start, stop), each piece in ``buffer`` until the next one is asked for."""
    while start < stop:
        count = os.preadv(data.number, [buffer[: stop - start]], start)
        if not count:
            raise OSError("the data file is shorter than its map says")
        yield buffer[:count]
        start += count
