"""The hot store: media files on local disk that can be read while they are still arriving.

An asset of one generation is a data file and beside it a small map: a header (size, state, frontier, boot id) and one
byte per 1 MiB block. Whoever has bytes writes them in place and then sets the map. The map is shared memory between
processes. A block never changes once it is set, and a file is never truncated, only unlinked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

BLOCK_BYTES = 1024 * 1024


class FileState(IntEnum):
    GROWING = 1  # a fetch is writing it from the start; ``frontier`` says how far
    SPARSE = 2  # finished elsewhere (Telegram); blocks come back as they are asked for
    FINAL = 3  # every block is there
    FAILED = 4  # the fetch gave up; readers must end with an error


class HotStoreFull(Exception):
    """The disk has no room for it."""


class WriterBusy(Exception):
    """Another process (or thread) is writing this file."""


class WrongBlock(Exception):
    """The bytes of a block do not match the record. The block was not set."""


@dataclass(frozen=True, kw_only=True)
class HotEntry:
    """One asset on disk, for listings and eviction."""

    asset_id: str
    generation: int
    state: FileState
    size_bytes: int | None
    disk_bytes: int  # allocated, not apparent
    last_read_at: float  # UNIX seconds


class HotFile:
    """A shared, counted, read-mostly mapping of one asset. Open it through ``HotStore.open``; close it when done.

    Safe to use from many threads and from the event loop: nothing in it waits for anything but memory and disk.
    """

    asset_id: str
    generation: int

    @property
    def state(self) -> FileState: ...

    @property
    def size_bytes(self) -> int | None: ...

    def available_from(self, offset: int) -> int:
        """How many bytes can be read from ``offset`` on without a gap, now."""
        ...

    def has_block(self, block: int) -> bool: ...

    def view(self, start: int, stop: int) -> memoryview:
        """The bytes [start, stop) without copying. They must be available; the slice keeps the mapping alive."""
        ...

    def put_block(self, block: int, data: bytes | memoryview, *, sha256: bytes) -> None:
        """Check one whole block against the record, write it, then set its byte. Idempotent. Raises WrongBlock, HotStoreFull."""
        ...

    def lock_blocks(self, first: int, count: int) -> AbstractContextManager[None] | None:
        """Try to become the one filler of these blocks among all processes; None when somebody else is.

        The kernel frees the lock when its process dies.
        """
        ...

    def close(self) -> None: ...


class HotWriter:
    """The one writer of a growing file. Holds the file's writer lock until closed (or until its process dies)."""

    @property
    def frontier(self) -> int:
        """Bytes there so far: where a resumed fetch goes on."""
        ...

    def read_back(self, start: int, stop: int) -> bytes:
        """Bytes already written; a resumed fetch compares an overlap before it goes on."""
        ...

    def set_size(self, size_bytes: int) -> None:
        """Say how large the file will be, as soon as it is known."""
        ...

    def append(self, data: bytes | memoryview) -> None:
        """Write at the frontier, hash, then move the frontier, so that readers may follow. Raises HotStoreFull."""
        ...

    def finish(self) -> tuple[bytes, ...]:
        """Make it FINAL and durable (fsync). Returns the block hashes. Raises ValueError if the size set is not reached."""
        ...

    @property
    def sha256_hex(self) -> str:
        """Of the whole file; valid after ``finish``."""
        ...

    def fail(self) -> None:
        """Mark it FAILED: every reader ends with an error. The bytes stay, for a later attempt to resume."""
        ...

    def close(self) -> None:
        """Give up the lock. Without ``finish`` or ``fail`` the file stays GROWING and can be resumed."""
        ...


class HotStore:
    """All assets on this machine's disk. Cheap to make; every process has its own over the same folder."""

    def __init__(self, root: Path) -> None: ...

    def create(self, asset_id: str, generation: int, *, resume: bool) -> HotWriter:
        """Become the writer. ``resume`` keeps the bytes up to the frontier (hashing them again), otherwise any old file
        of this generation is unlinked first. Raises WriterBusy, HotStoreFull.
        """
        ...

    def adopt(self, asset_id: str, generation: int, path: Path, *, block_hashes: Sequence[bytes]) -> None:
        """Take a finished file from the same file system (rename), complete at once. Durable when it returns."""
        ...

    def open(self, asset_id: str, generation: int) -> HotFile | None:
        """The file as it is, or None. Counted: each open needs a close."""
        ...

    def open_sparse(self, asset_id: str, generation: int, *, size_bytes: int, block_hashes: Sequence[bytes]) -> HotFile:
        """The file, made empty and sparse when it is not there, for bytes that come back from Telegram.

        A map of an earlier boot is doubtful: its blocks are hashed against ``block_hashes`` before they count.
        """
        ...

    def is_complete(self, asset_id: str, generation: int) -> bool:
        """Whether every byte is here. A few microseconds; safe on the event loop."""
        ...

    def remove(self, asset_id: str, generation: int) -> int:
        """Unlink; readers that have it open read on. Returns the bytes freed once they are done. Idempotent."""
        ...

    def entries(self) -> Iterator[HotEntry]: ...

    def scratch_dir(self, asset_id: str, attempt: int) -> Path:
        """A fresh folder on the same file system for files that must be finished (muxed) before they count."""
        ...
