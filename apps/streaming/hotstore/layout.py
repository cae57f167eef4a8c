"""What the hot store's files are called, the words everybody in the package shares, and small file helpers."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from apps.core.room import room_of

BLOCK_BYTES = 1024 * 1024
MAP_SUFFIX = ".map"
_NAME = re.compile(r"([0-9A-Za-z_-]{2,64})\.([0-9]{1,9})", re.ASCII)
_ASSET_ID = re.compile(r"[0-9A-Za-z_-]{2,64}", re.ASCII)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileState(IntEnum):
    GROWING = 1  # a fetch is writing it from the start; ``frontier`` says how far
    SPARSE = 2  # finished elsewhere (Telegram); blocks come back as they are asked for
    FINAL = 3  # every block is there
    FAILED = 4  # the fetch gave up; readers must end with an error


class HotStoreFull(Exception):
    """The disk has no room for it. ``missing_bytes``: how much is missing, where that is known."""

    def __init__(self, message: str = "", *, missing_bytes: int = 0) -> None:
        self.missing_bytes = missing_bytes
        super().__init__(message)


class WriterBusy(Exception):
    """Another process (or thread) is writing this file."""


class WrongBlock(Exception):
    """The bytes of a block do not match the record. The block was not set."""


class HotFileRemoved(Exception):
    """The file was removed from the store while it was being written. Start again."""


@dataclass(frozen=True, kw_only=True)
class HotEntry:
    """One asset on disk, for listings and eviction."""

    asset_id: str
    generation: int
    state: FileState  # FAILED as well when the map is missing or unreadable
    size_bytes: int | None
    disk_bytes: int  # allocated, not apparent
    last_read_at: float  # UNIX seconds, true to about a minute


class HotUsage(NamedTuple):
    """What the hot store takes on the disk; unfinished files as well, as far as they are there."""

    files: int
    disk_bytes: int  # allocated, not apparent


@dataclass(frozen=True)
class HotPath:
    """Where one generation of one asset lies."""

    data: Path
    map: Path
    lock_offset: int  # of its two lock bytes in the store's lock file

    @staticmethod
    @lru_cache(maxsize=8192)
    def of(root: Path, asset_id: str, generation: int) -> HotPath:
        """Raises ValueError for an id that is not a plain name: ids become paths."""
        if not _ASSET_ID.fullmatch(asset_id) or not 0 <= generation < 10**9:
            raise ValueError(f"not an asset id and generation: {asset_id!r} {generation!r}")
        name = f"{asset_id}.{generation}"
        folder = root / asset_id[-2:]
        digest = hashlib.sha256(name.encode()).digest()
        lock_offset = (int.from_bytes(digest[:8], "big") >> 2) & ~1
        return HotPath(folder / name, folder / f"{name}{MAP_SUFFIX}", lock_offset)


def parse_name(name: str) -> tuple[str, int] | None:
    """Asset id and generation of a data file's name, or None for any other file."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def block_count(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES)


def block_length(block: int, size_bytes: int) -> int:
    """Bytes in this block; only the last one is shorter."""
    return min(BLOCK_BYTES, size_bytes - block * BLOCK_BYTES)


class OwnedFd:
    """A file descriptor that is closed when its last holder lets go, so that no call can meet a reused number."""

    __slots__ = ("number",)

    def __init__(self, path: Path | str, flags: int) -> None:
        self.number = -1
        self.number = os.open(path, flags | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@contextmanager
def disk_full_reported() -> Iterator[None]:
    """Turn "no room" of the operating system into HotStoreFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise HotStoreFull(os.strerror(error.errno)) from error
        raise


def write_fully(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of it at ``offset``. Raises HotStoreFull, also where the disk may not take it and a block more: that is
    looked at as often as a block begins."""
    view = memoryview(data).cast("B")
    begins_a_block = offset // BLOCK_BYTES != (offset + len(view)) // BLOCK_BYTES
    with disk_full_reported():
        if begins_a_block and not room_of(fd).takes(len(view) + BLOCK_BYTES):
            raise HotStoreFull("what is left of the disk is not ours")
        while view:
            written = os.pwrite(fd, view, offset)
            view = view[written:]
            offset += written


def fsync_path(path: Path) -> None:
    """Make a folder's names, or a file's bytes, durable."""
    fd = OwnedFd(path, os.O_RDONLY)
    os.fsync(fd.number)


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode that the name stands for now, or None when there is no such file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def fd_identity(fd: int) -> tuple[int, int]:
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino
