"""Writing an asset from its start to its end, while others read what is there already."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from apps.streaming.hotstore.behind import BlockHashes, Follower, WholeHash, make_durable
from apps.streaming.hotstore.blockmap import PRESENT, BlockMap
from apps.streaming.hotstore.layout import (
    BLOCK_BYTES,
    FileState,
    HotFileRemoved,
    HotPath,
    OwnedFd,
    block_count,
    disk_full_reported,
    fd_identity,
    fsync_path,
    identity,
    write_fully,
)
from apps.streaming.hotstore.locks import RangeLock

DURABLE_STEP_BYTES = 32 * 1024 * 1024
MAX_DOUBTFUL_BYTES = 256 * 1024 * 1024  # a disk that is slower than the network is waited for


class HotWriter:
    """The one writer of a growing file. Holds the file's writer lock until closed (or until its process dies).

    For one thread at a time. Leaving a ``with`` block closes it.
    """

    def __init__(self, path: HotPath, lock: RangeLock) -> None:
        """``HotStore.create`` has made the files and checked them, and calls ``recover`` next."""
        self._path = path
        self._lock = lock
        self._data = OwnedFd(path.data, os.O_RDWR)
        self._map = BlockMap(path.map)
        self._whole = WholeHash(self._data)
        self._blocks = BlockHashes(self._data)
        self._hashing = [Follower(part.follow, step_bytes=BLOCK_BYTES) for part in (self._whole, self._blocks)]
        self._syncing = Follower(partial(make_durable, self._data, self._map), step_bytes=sys.maxsize)

    def recover(self, check: Callable[[], None]) -> None:
        """Keep the bytes that are surely there, and hash them again. For ``HotStore.create``."""
        self._limit_to_what_is_sure()
        for start in range(0, self._map.frontier, BLOCK_BYTES):
            check()
            stop = min(start + BLOCK_BYTES, self._map.frontier)
            self.hash_up_to(stop)
        self._syncing.begin_at(self._map.durable)

    def _limit_to_what_is_sure(self) -> None:
        if self._map.state is FileState.FINAL:
            return
        if self._map.is_doubtful:
            marked = block_count(self._map.frontier)
            self._map.frontier = min(self._map.frontier, self._map.durable)
            self._map.mark(self._map.frontier // BLOCK_BYTES, marked, 0)
            self._map.claim_for_this_boot()
        self._map.state = FileState.GROWING

    def __enter__(self) -> HotWriter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def frontier(self) -> int:
        """Bytes there so far: where a resumed fetch goes on."""
        return self._map.frontier

    @property
    def size_bytes(self) -> int | None:
        """What was set, also by an earlier attempt."""
        return self._map.size_bytes

    def read_back(self, start: int, stop: int) -> bytes:
        """Bytes already written; a resumed fetch compares an overlap before it goes on."""
        if not 0 <= start <= stop <= self._map.frontier:
            raise ValueError(f"bytes {start} to {stop} are not written yet")
        pieces = []
        while start < stop:
            piece = os.pread(self._data.number, stop - start, start)
            if not piece:
                raise OSError("the data file is shorter than its map says")
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def set_size(self, size_bytes: int) -> None:
        """Say how large the file will be, as soon as it is known. Raises ValueError if that was said differently before
        or more than that is there, HotStoreFull.
        """
        if size_bytes < max(1, self.frontier) or self.size_bytes not in (None, size_bytes):
            raise ValueError(f"the size cannot become {size_bytes}")
        self._map.grow(block_count(size_bytes))
        if os.fstat(self._data.number).st_size < size_bytes:
            with disk_full_reported():
                os.ftruncate(self._data.number, size_bytes)
        self._map.size_bytes = size_bytes

    def append(self, data: bytes | memoryview) -> None:
        """Write at the frontier, then move it, so that readers may follow. Hashing, and making it durable, follow too.

        Raises HotStoreFull, and ValueError for more than the size that was set.
        """
        start = self.frontier
        stop = start + len(data)
        if self._map.state is not FileState.GROWING or (self.size_bytes is not None and stop > self.size_bytes):
            raise ValueError("more bytes than the file can take")
        self._map.grow(block_count(stop))
        write_fully(self._data.number, data, start)
        self._map.mark(start // BLOCK_BYTES, stop // BLOCK_BYTES, PRESENT)
        self._map.frontier = stop
        if start // BLOCK_BYTES != stop // BLOCK_BYTES:
            for follower in self._hashing:
                follower.advance(stop - stop % BLOCK_BYTES)
        if stop - self._syncing.target >= DURABLE_STEP_BYTES:
            with disk_full_reported():
                self._syncing.advance(stop)
                if stop - self._map.durable >= MAX_DOUBTFUL_BYTES:
                    self._syncing.catch_up(stop)

    def hash_up_to(self, stop: int) -> None:
        """Wait until the bytes before ``stop``, which must be there, are hashed."""
        for follower in self._hashing:
            follower.advance(stop)
        for follower in self._hashing:
            follower.catch_up(stop)

    def finish(self) -> tuple[bytes, ...]:
        """Make it FINAL and durable (fsync). Returns the block hashes. Idempotent.

        Raises ValueError if it is empty or the size set is not reached, HotFileRemoved if it was removed meanwhile.
        """
        size = self.frontier
        if size == 0 or self.size_bytes not in (None, size):
            raise ValueError(f"{size} of {self.size_bytes} bytes are there")
        for follower in self._hashing:
            follower.advance(size)
        if self._map.state is not FileState.FINAL:
            with disk_full_reported():
                os.fsync(self._data.number)
                self._syncing.catch_up(self._syncing.target)
        self.hash_up_to(size)
        if self._map.state is not FileState.FINAL:
            self._map.mark(0, block_count(size), PRESENT)
            self._map.size_bytes = size
            self._map.durable = size
            self._map.state = FileState.FINAL
            self._map.sync()
            fsync_path(self._path.data.parent)
        if identity(self._path.data) != fd_identity(self._data.number) or identity(self._path.map) != fd_identity(
            self._map.fd.number
        ):
            raise HotFileRemoved
        return self._blocks.digests(size)

    @property
    def sha256_hex(self) -> str:
        """Of the whole file; valid after ``finish``."""
        return self._whole.hexdigest()

    def fail(self) -> None:
        """Mark it FAILED: every reader ends with an error. The bytes stay, for a later attempt to resume."""
        if self._map.state is FileState.GROWING:
            self._map.state = FileState.FAILED

    def close(self) -> None:
        """Give up the lock. Without ``finish`` or ``fail`` the file stays GROWING and can be resumed. Idempotent."""
        for follower in self._hashing:
            follower.give_up()
        with suppress(OSError):  # then less is durable, as the map says
            self._syncing.catch_up(self._syncing.target)
        self._lock.release()  # now, also when an error still has hold of this writer
