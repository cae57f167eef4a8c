"""Reading an asset: one mapping per process, shared by all who have it open."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from contextlib import AbstractContextManager

from apps.streaming.hotstore.blockmap import HEADER_BYTES, VERIFIED, BadMap, BlockMap
from apps.streaming.hotstore.layout import (
    BLOCK_BYTES,
    FileState,
    HotPath,
    OwnedFd,
    WrongBlock,
    block_count,
    block_length,
    fd_identity,
    identity,
    write_fully,
)
from apps.streaming.hotstore.locks import try_lock
from apps.streaming.hotstore.residency import Residency

OPEN_ATTEMPTS = 20


class SharedFile:
    """The mapping itself. Lives as long as a HotFile, a running call or a slice needs it; then the kernel frees it."""

    def __init__(self, path: HotPath, residency: Residency) -> None:
        """Raises FileNotFoundError or BadMap. Data first, then map: see HotStore on the order of names."""
        self.path = path
        self._residency = residency
        self._remap_lock = threading.Lock()
        self._data = OwnedFd(path.data, os.O_RDWR)
        self.map = BlockMap(path.map)
        size = self.map.size_bytes
        if os.fstat(self._data.number).st_size < (self.map.frontier if self.map.state in _FROM_START else size or 0):
            raise BadMap
        self._identities = fd_identity(self.map.fd.number), fd_identity(self._data.number)
        self._mapping: mmap.mmap | None = None
        self._bytes = memoryview(b"")

    def __del__(self) -> None:
        if mapping := getattr(self, "_mapping", None):
            self._residency.forget(mapping)

    def is_current(self) -> bool:
        """Whether its names still stand for it (a removed file can be read on, but not opened again)."""
        return (identity(self.path.map), identity(self.path.data)) == self._identities

    def view(self, start: int, stop: int) -> memoryview:
        if not 0 <= start <= stop or self.map.available_from(start) < stop - start:
            raise ValueError(f"bytes {start} to {stop} are not here")
        self.map.touch()
        if stop > len(self._bytes):
            self._map_more(stop)
        if self._mapping is not None:
            self._residency.note(self._mapping, stop - start)
        return self._bytes[start:stop]

    def send(self, to: int, start: int, stop: int) -> int:
        if not 0 <= start < stop or self.map.available_from(start) < stop - start:
            raise ValueError(f"bytes {start} to {stop} are not here")
        self.map.touch()
        return os.sendfile(to, self._data.number, start, stop - start)

    def _map_more(self, stop: int) -> None:
        with self._remap_lock:
            if stop <= len(self._bytes):
                return
            mapping = mmap.mmap(self._data.number, os.fstat(self._data.number).st_size, access=mmap.ACCESS_READ)
            # The old mapping is not closed: slices of it may be on their way to clients. It goes with the last one.
            if self._mapping is not None:
                self._residency.forget(self._mapping)
            self._mapping, self._bytes = mapping, memoryview(mapping)

    def put_block(self, block: int, data: bytes | memoryview, *, sha256: bytes) -> None:
        size = self.map.size_bytes
        if size is None or self.map.state is not FileState.SPARSE:
            if self.map.has(block):
                return
            raise ValueError("only a sparse file takes single blocks")
        if not 0 <= block < block_count(size):
            raise ValueError(f"there is no block {block}")
        if len(data) != block_length(block, size) or hashlib.sha256(data).digest() != sha256:
            raise WrongBlock(f"block {block} does not match the record")
        if not self.map.has(block):
            write_fully(self._data.number, data, block * BLOCK_BYTES)
            self.map.mark(block, block + 1, VERIFIED)

    def lock_blocks(self, first: int, count: int) -> AbstractContextManager[None] | None:
        # By way of /proc, so that it is this very map, also when it has been unlinked since.
        return try_lock(f"/proc/self/fd/{self.map.fd.number}", HEADER_BYTES + first, count)


_FROM_START = frozenset({FileState.GROWING, FileState.FAILED})


class HotFile:
    """A shared, counted, read-mostly mapping of one asset. Open it through ``HotStore.open``; close it when done.

    Safe to use from many threads and from the event loop: nothing in it waits for anything but memory and disk.
    A handle that is forgotten is closed by the garbage collector. Every method raises ValueError after ``close``.
    """

    def __init__(self, shared: SharedFile, asset_id: str, generation: int) -> None:
        self._shared_or_none: SharedFile | None = shared
        self.asset_id = asset_id
        self.generation = generation

    @property
    def _shared(self) -> SharedFile:
        shared = self._shared_or_none
        if shared is None:
            raise ValueError("this hot file is closed")
        return shared

    def share(self) -> HotFile:
        """Another handle on the same mapping, for background work that outlives this one. Needs its own ``close``."""
        return HotFile(self._shared, self.asset_id, self.generation)

    @property
    def state(self) -> FileState:
        return self._shared.map.state

    @property
    def size_bytes(self) -> int | None:
        return self._shared.map.size_bytes

    @property
    def is_current(self) -> bool:
        """False once the file was removed or replaced in the store; reading on works all the same."""
        return self._shared.is_current()

    def available_from(self, offset: int) -> int:
        """How many bytes can be read from ``offset`` on without a gap, now."""
        return self._shared.map.available_from(offset)

    def has_block(self, block: int) -> bool:
        return self._shared.map.has(block)

    def view(self, start: int, stop: int) -> memoryview:
        """The bytes [start, stop) without copying. They must be available (else ValueError).

        The slice keeps the mapping alive, also after ``close``.
        """
        return self._shared.view(start, stop)

    def send(self, to: int, start: int, stop: int) -> int:
        """Have the kernel send the bytes [start, stop), which must be available, to the socket ``to`` without copying.

        How many it took; 0: the file was made shorter. Raises BlockingIOError when there is no room at all.
        """
        return self._shared.send(to, start, stop)

    def put_block(self, block: int, data: bytes | memoryview, *, sha256: bytes) -> None:
        """Check one whole block against the record, write it, then set its byte. Idempotent.

        Raises WrongBlock or HotStoreFull, and ValueError for a file that is not SPARSE and lacks the block.
        """
        self._shared.put_block(block, data, sha256=sha256)

    def lock_blocks(self, first: int, count: int) -> AbstractContextManager[None] | None:
        """Try to become the one filler of these blocks among all processes; None when somebody else is.

        The kernel frees the lock when its process dies.
        """
        return self._shared.lock_blocks(first, count)

    def close(self) -> None:
        self._shared_or_none = None


def open_shared(path: HotPath, residency: Residency) -> SharedFile | None:
    """The pair of data and map, or None when it is not there or cannot be trusted to belong together."""
    for _ in range(OPEN_ATTEMPTS):
        try:
            shared = SharedFile(path, residency)
        except (FileNotFoundError, BadMap):
            return None
        if shared.is_current():
            return shared
    return None
