"""The map beside a data file: a header of 8-byte words and one byte per block, in memory shared between processes."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from apps.streaming.hotstore.layout import (
    BLOCK_BYTES,
    FileState,
    OwnedFd,
    block_count,
    disk_full_reported,
    write_fully,
)

ABSENT, PRESENT, VERIFIED = 0, 1, 2
MAGIC = int.from_bytes(b"YTHOTMAP", "little")
VERSION = 1
HEADER_BYTES = 4096  # a page, so that the block bytes grow by pages
CAPACITY_STEP = 4096  # blocks: 4 GiB of media for each page of map
UNKNOWN_SIZE = 2**64 - 1
LAST_READ_STEP_S = 60

_MAGIC, _VERSION, _BOOT_LOW, _BOOT_HIGH, _SIZE, _FRONTIER, _STATE, _DURABLE, _LAST_READ = range(9)
_WORDS = struct.Struct("=9Q")
_STATES = frozenset(FileState)


class BadMap(Exception):
    """The map is missing, torn or of another version: what it says cannot be used."""


class Header(NamedTuple):
    """The header's words as plain values, read in one go."""

    boot: tuple[int, int]
    size_bytes: int | None
    frontier: int
    state: FileState
    durable: int  # bytes from the start that were fsynced: what counts after a crash of the machine
    last_read_at: float

    @property
    def is_doubtful(self) -> bool:
        """Written before the machine last started, and never made durable: the data may not be what it says."""
        return self.state is not FileState.FINAL and self.boot != boot_id()


@cache
def boot_id() -> tuple[int, int]:
    digits = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
    return int(digits[:16], 16), int(digits[16:], 16)


def read_header(fd: OwnedFd) -> Header:
    """Raises BadMap."""
    raw = os.pread(fd.number, _WORDS.size, 0)
    if len(raw) < _WORDS.size:
        raise BadMap
    words = _WORDS.unpack(raw)
    if words[_MAGIC] != MAGIC or words[_VERSION] != VERSION or words[_STATE] not in _STATES:
        raise BadMap
    size = None if words[_SIZE] == UNKNOWN_SIZE else words[_SIZE]
    state = FileState(words[_STATE])
    if (size is None and state in {FileState.FINAL, FileState.SPARSE}) or words[_FRONTIER] > words[_SIZE]:
        raise BadMap
    if os.fstat(fd.number).st_size < HEADER_BYTES + block_count(size or 1):
        raise BadMap
    return Header(
        boot=(words[_BOOT_LOW], words[_BOOT_HIGH]),
        size_bytes=size,
        frontier=words[_FRONTIER],
        state=state,
        durable=words[_DURABLE],
        last_read_at=float(words[_LAST_READ]),
    )


def write_map(path: Path, *, size_bytes: int | None, state: FileState, blocks: Iterable[int] = (), sync: bool) -> None:
    """Make a whole map under its own name; it becomes real when renamed. Raises HotStoreFull."""
    is_final = state is FileState.FINAL
    frontier = (size_bytes or 0) if is_final else 0
    words = _WORDS.pack(
        MAGIC, VERSION, *boot_id(), UNKNOWN_SIZE if size_bytes is None else size_bytes,
        frontier, state, frontier, int(time.time()),
    )  # fmt: skip
    marks = bytes(blocks)
    capacity = _round_up(max(len(marks), block_count(size_bytes or 1)))
    fd = OwnedFd(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    write_fully(fd.number, words.ljust(HEADER_BYTES, b"\0") + marks.ljust(capacity, b"\0"), 0)
    if sync:
        os.fsync(fd.number)


def _round_up(blocks: int) -> int:
    return -(-blocks // CAPACITY_STEP) * CAPACITY_STEP


class BlockMap:
    """A map that is open in this process. Its single values may be read and written from any thread.

    Room for more blocks is allocated with ``grow`` before it is used: writing to a hole of a full disk would be a
    SIGBUS. Other processes notice by the file's length.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError or BadMap."""
        self.fd = OwnedFd(path, os.O_RDWR)
        self._remap_lock = threading.Lock()
        read_header(self.fd)
        self._map_file()

    def _map_file(self) -> None:
        memory = mmap.mmap(self.fd.number, 0, access=mmap.ACCESS_WRITE)
        # Swapped in one go: a thread that still uses the old mapping reads and writes the same shared pages.
        self._memory, self._words = memory, memoryview(memory)[:HEADER_BYTES].cast("Q")

    @property
    def _capacity(self) -> int:
        return len(self._memory) - HEADER_BYTES

    def _reach(self, block: int) -> mmap.mmap:
        """The mapping, mapped again when another process has made it longer."""
        memory = self._memory
        if HEADER_BYTES + block >= len(memory):
            with self._remap_lock:
                self._map_file()
            memory = self._memory
        return memory

    def grow(self, blocks: int) -> None:
        """Make room for this many blocks. Raises HotStoreFull."""
        if blocks <= self._capacity:
            return
        with self._remap_lock, disk_full_reported():
            os.posix_fallocate(self.fd.number, 0, HEADER_BYTES + _round_up(blocks))
            self._map_file()

    @property
    def state(self) -> FileState:
        return FileState(self._words[_STATE])

    @state.setter
    def state(self, state: FileState) -> None:
        self._words[_STATE] = state

    @property
    def size_bytes(self) -> int | None:
        size = self._words[_SIZE]
        return None if size == UNKNOWN_SIZE else size

    @size_bytes.setter
    def size_bytes(self, size_bytes: int) -> None:
        self._words[_SIZE] = size_bytes

    @property
    def frontier(self) -> int:
        return self._words[_FRONTIER]

    @frontier.setter
    def frontier(self, frontier: int) -> None:
        self._words[_FRONTIER] = frontier

    @property
    def durable(self) -> int:
        return self._words[_DURABLE]

    @durable.setter
    def durable(self, durable: int) -> None:
        self._words[_DURABLE] = durable

    @property
    def is_doubtful(self) -> bool:
        words = self._words
        return words[_STATE] != FileState.FINAL and (words[_BOOT_LOW], words[_BOOT_HIGH]) != boot_id()

    def claim_for_this_boot(self) -> None:
        """Say that what the map holds is true for the running machine."""
        self._words[_BOOT_LOW], self._words[_BOOT_HIGH] = boot_id()

    def touch(self) -> None:
        """Note that it is being read; at most one store a minute."""
        now = int(time.time())
        if now - self._words[_LAST_READ] >= LAST_READ_STEP_S:
            self._words[_LAST_READ] = now

    def has(self, block: int) -> bool:
        memory = self._reach(block)
        return HEADER_BYTES + block < len(memory) and memory[HEADER_BYTES + block] != ABSENT

    def mark(self, first: int, stop: int, value: int) -> None:
        """Set the bytes of blocks [first, stop). There must be room."""
        if stop > first:
            memory = self._reach(stop - 1)
            memory[HEADER_BYTES + first : HEADER_BYTES + stop] = bytes([value]) * (stop - first)

    def first_absent(self, first: int, stop: int) -> int:
        """The first block of [first, stop) that is not there; ``stop`` when all are."""
        memory = self._reach(stop - 1)
        found = memory.find(b"\0", HEADER_BYTES + first, HEADER_BYTES + stop)
        return stop if found < 0 else found - HEADER_BYTES

    def marks(self, stop: int) -> bytes:
        """The bytes of blocks [0, stop)."""
        return self._reach(stop - 1)[HEADER_BYTES : HEADER_BYTES + stop]

    def sync(self) -> None:
        os.fsync(self.fd.number)

    def available_from(self, offset: int) -> int:
        """Bytes without a gap from ``offset`` on, by what the map says."""
        state, size = self.state, self.size_bytes
        if state is FileState.FINAL and size is not None:
            return max(0, size - offset)
        if state is not FileState.SPARSE or size is None:
            return max(0, self.frontier - offset)
        if offset >= size:
            return 0
        gap = self.first_absent(offset // BLOCK_BYTES, block_count(size))
        return max(0, min(gap * BLOCK_BYTES, size) - offset)
