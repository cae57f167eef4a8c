"""Makes a map again, by hashing against the record, where it is missing, torn or of an earlier boot."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from apps.streaming.hotstore.blockmap import ABSENT, VERIFIED, BadMap, BlockMap
from apps.streaming.hotstore.layout import (
    BLOCK_BYTES,
    FileState,
    HotPath,
    OwnedFd,
    block_count,
    block_length,
    disk_full_reported,
    fd_identity,
    identity,
)


@dataclass(frozen=True, kw_only=True)
class RebuiltMap:
    """What hashing found, and which files that is true for."""

    path: HotPath
    marks: bytes
    data_identity: tuple[int, int]
    map_identity: tuple[int, int] | None

    @property
    def state(self) -> FileState:
        return FileState.SPARSE if ABSENT in self.marks else FileState.FINAL

    def is_unchanged(self) -> bool:
        """Whether the names still stand for the files that were hashed."""
        return identity(self.path.data) == self.data_identity and identity(self.path.map) == self.map_identity


def rebuild_map(path: HotPath, size_bytes: int, block_hashes: Sequence[bytes]) -> RebuiltMap | None:
    """Hash what is there. Only blocks that match count, so nothing needs to be trusted.

    None when there is no data file, or one that cannot be this asset's. Whole files are made durable, since a FINAL
    map is believed after a crash.
    """
    try:
        data = OwnedFd(path.data, os.O_RDWR)
    except FileNotFoundError:
        return None
    map_identity = identity(path.map)
    if os.fstat(data.number).st_size > size_bytes or _contradicts(path, size_bytes):
        return None
    with disk_full_reported():
        os.ftruncate(data.number, size_bytes)  # upwards only: checked above
    marks = bytes(
        VERIFIED if _matches(data.number, block, size_bytes, block_hashes[block]) else ABSENT
        for block in range(block_count(size_bytes))
    )
    if ABSENT not in marks:
        os.fsync(data.number)
    return RebuiltMap(path=path, marks=marks, data_identity=fd_identity(data.number), map_identity=map_identity)


def _contradicts(path: HotPath, size_bytes: int) -> bool:
    try:
        known = BlockMap(path.map).size_bytes
    except (FileNotFoundError, BadMap):
        return False
    return known not in (None, size_bytes)


def _matches(fd: int, block: int, size_bytes: int, sha256: bytes) -> bool:
    start, length = block * BLOCK_BYTES, block_length(block, size_bytes)
    try:
        if os.lseek(fd, start, os.SEEK_DATA) >= start + length:
            return False  # a hole: do not hash zeros
    except OSError:
        return False  # ENXIO: nothing but a hole up to the end
    piece = os.pread(fd, length, start)
    return len(piece) == length and hashlib.sha256(piece).digest() == sha256
