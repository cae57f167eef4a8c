"""How much of the hot store's disk stays free, and for whom: one measure for all who look at it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

MIB = 1024 * 1024
KEPT_FREE_BYTES = 512 * MIB
KEPT_FREE_SHARE = 8  # of a small disk no more than an eighth


class Room(NamedTuple):
    """The disk of a folder as it is now."""

    total_bytes: int
    free_bytes: int

    @property
    def kept_free_bytes(self) -> int:
        """Files leave the hot store as long as less is free."""
        return min(KEPT_FREE_BYTES, self.total_bytes // KEPT_FREE_SHARE)

    @property
    def is_full(self) -> bool:
        """So little is free that something is wrong: nothing may leave, or somebody else fills the disk."""
        return self.free_bytes < self.kept_free_bytes // 2

    @property
    def left_bytes(self) -> int:
        """What the hot store never takes: a MongoDB on the same disk ends when that is full to the last byte."""
        return self.kept_free_bytes // 8

    def takes(self, size_bytes: int) -> bool:
        """Whether the hot store may take so many more."""
        return self.free_bytes - size_bytes >= self.left_bytes


def room_of(place: Path | int) -> Room:
    """Of a folder, or of an open file. Raises OSError."""
    disk = shutil.disk_usage(place)
    return Room(disk.total, disk.free)
