"""Locks between processes *and* threads: OFD locks, each with its own file description.

The kernel frees them when the description closes, so a killed process leaves none behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from apps.streaming.hotstore.layout import OwnedFd, WriterBusy

_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, length, pid (must be 0)
STRUCTURE_TIMEOUT_S = 10.0
_RETRY_S = 0.002


class RangeLock:
    """A held exclusive lock on a byte range. Leave the ``with`` block, or call ``release``, to give it up."""

    def __init__(self, fd: OwnedFd) -> None:
        self._fd: OwnedFd | None = fd

    def release(self) -> None:
        self._fd = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def try_lock(path: Path | str, start: int, length: int) -> RangeLock | None:
    """The lock, or None when somebody else holds a part of the range. The file is made if absent."""
    fd = OwnedFd(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.fcntl(fd.number, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return None
        raise
    return RangeLock(fd)


class StructureLock:
    """Held for the moments in which files of one generation are made, replaced or unlinked."""

    def __init__(self, lock_file: Path, offset: int) -> None:
        self._lock_file = lock_file
        self._offset = offset
        self._held: RangeLock | None = None

    def __enter__(self) -> Self:
        deadline = time.monotonic() + STRUCTURE_TIMEOUT_S
        while (held := try_lock(self._lock_file, self._offset, 1)) is None:
            if time.monotonic() > deadline:
                raise WriterBusy("another process holds this file's names")
            time.sleep(_RETRY_S)
        self._held = held
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = None
