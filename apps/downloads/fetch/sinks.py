"""Where arriving bytes go: a growing hot file, or a scratch file that ffmpeg finishes later."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

from apps.streaming.hotstore import WriterBusy
from apps.streaming.hotstore.layout import write_fully


class Sink(Protocol):
    """Grows from the start. ``HotWriter`` is one."""

    @property
    def frontier(self) -> int: ...

    @property
    def size_bytes(self) -> int | None: ...

    def read_back(self, start: int, stop: int) -> bytes: ...

    def set_size(self, size_bytes: int) -> None: ...

    def append(self, data: bytes | memoryview) -> None: ...


class ScratchFile:
    """A plain file that only one process writes at a time: the lock goes with the process. For one thread."""

    def __init__(self, path: Path) -> None:
        """Opens what is there, or a new file. Raises WriterBusy while an earlier attempt still writes it."""
        self.path = path
        self.size_bytes: int | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise WriterBusy(path.name) from None
        self.frontier = os.fstat(self._descriptor).st_size

    def read_back(self, start: int, stop: int) -> bytes:
        return os.pread(self._descriptor, stop - start, start)

    def set_size(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def append(self, data: bytes | memoryview) -> None:
        """Raises HotStoreFull."""
        write_fully(self._descriptor, data, self.frontier)
        self.frontier += len(data)

    def clear(self) -> None:
        """Begin again from nothing."""
        os.ftruncate(self._descriptor, 0)
        self.frontier, self.size_bytes = 0, None

    def close(self) -> None:
        """Let go of the file and its lock. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
