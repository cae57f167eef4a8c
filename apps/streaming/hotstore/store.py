"""All assets on this machine's disk: making, opening, listing and removing them.

Order of names, which makes opening safe without a lock: a map is unlinked before its data file is unlinked or replaced,
and made after it. Whoever opens data, then map, then finds both names unchanged, has a pair that belongs together.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

from apps.streaming.hotstore.blockmap import PRESENT, BadMap, Header, read_header, write_map
from apps.streaming.hotstore.layout import (
    MAP_SUFFIX,
    FileState,
    HotEntry,
    HotPath,
    HotStoreFull,
    HotUsage,
    OwnedFd,
    WriterBusy,
    block_count,
    disk_full_reported,
    fsync_path,
    parse_name,
)
from apps.streaming.hotstore.locks import RangeLock, StructureLock, try_lock
from apps.streaming.hotstore.reading import HotFile, SharedFile, open_shared
from apps.streaming.hotstore.rebuild import rebuild_map
from apps.streaming.hotstore.residency import Residency
from apps.streaming.hotstore.writing import HotWriter

LOCK_FILE = ".locks"
SCRATCH_FOLDER = ".scratch"
REBUILD_TIMEOUT_S = 60.0
RETRY_S = 0.02


class HotStore:
    """All assets on this machine's disk. Cheap to make; every process has its own over the same folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._residency = Residency()
        self._open: WeakValueDictionary[HotPath, SharedFile] = WeakValueDictionary()
        self._open_lock = threading.Lock()

    def create(
        self, asset_id: str, generation: int, *, resume: bool, check: Callable[[], None] = lambda: None
    ) -> HotWriter:
        """Become the writer. ``resume`` keeps the bytes up to the frontier (hashing them again), otherwise any old file
        of this generation is unlinked first. Raises WriterBusy, HotStoreFull.

        Resuming a file that is FINAL gives a writer that only needs ``finish``. After a crash of the machine only the
        bytes that were surely on the disk are kept. Hashing a large file again takes seconds: ``check`` is called after
        each MiB, and what it raises ends it.
        """
        path = self._path(asset_id, generation)
        lock = self._writer_lock(path)
        with self._structure_lock(path):
            kept = open_shared(path, self._residency) if resume else None
            if kept is None or kept.map.state is FileState.SPARSE:
                self._make(path, size_bytes=None, state=FileState.GROWING)
            writer = HotWriter(path, lock)
        try:
            writer.recover(check)
        except BaseException:
            writer.close()
            raise
        return writer

    def adopt(self, asset_id: str, generation: int, path: Path, *, block_hashes: Sequence[bytes]) -> None:
        """Take a finished file from the same file system (rename), complete at once. Durable when it returns.

        ``block_hashes`` are those that the caller has just computed from it; they are counted, not checked again.
        Raises WriterBusy, HotStoreFull.
        """
        size = path.stat().st_size
        blocks = _checked_block_count(size, block_hashes)
        target = self._path(asset_id, generation)
        with self._writer_lock(target), self._structure_lock(target):
            fsync_path(path)
            target.map.unlink(missing_ok=True)
            path.replace(target.data)
            self._place_map(target, size, FileState.FINAL, bytes([PRESENT]) * blocks)
            fsync_path(target.data.parent)

    def open(self, asset_id: str, generation: int) -> HotFile | None:
        """The file as it is, or None. Counted: each open needs a close.

        None as well for an unfinished file of an earlier boot: its writer, or ``open_sparse``, has to look at it first.
        """
        path = HotPath.of(self.root, asset_id, generation)
        with self._open_lock:
            shared = self._open.get(path)
            if shared is None or not shared.is_current():
                shared = open_shared(path, self._residency)
                if shared is None:
                    return None
                self._open[path] = shared
        if shared.map.is_doubtful:
            return None
        shared.map.touch()
        return HotFile(shared, asset_id, generation)

    def open_sparse(self, asset_id: str, generation: int, *, size_bytes: int, block_hashes: Sequence[bytes]) -> HotFile:
        """The file, made empty and sparse when it is not there, for bytes that come back from Telegram.

        A file without a good map, or left unfinished, is hashed block by block against ``block_hashes``, which can take
        seconds: call it from a thread. A file that is being written right now is returned as it is. Raises
        HotStoreFull, and ValueError when size and hashes do not fit.
        """
        _checked_block_count(size_bytes, block_hashes)
        path = self._path(asset_id, generation)
        deadline = time.monotonic() + REBUILD_TIMEOUT_S
        while (hot_file := self._open_fitting(asset_id, generation, size_bytes)) is None:
            lock = try_lock(self._lock_file, path.lock_offset + 1, 1)
            if lock is None:
                growing = self.open(asset_id, generation)
                if growing is not None and growing.state is FileState.GROWING:
                    return growing
                if time.monotonic() > deadline:
                    raise WriterBusy(f"{path.data.name} is being looked at by somebody else")
                time.sleep(RETRY_S)
                continue
            with lock:
                if self._open_fitting(asset_id, generation, size_bytes) is None:
                    self._make_sparse(path, size_bytes, block_hashes)
        return hot_file

    def _open_fitting(self, asset_id: str, generation: int, size_bytes: int) -> HotFile | None:
        hot_file = self.open(asset_id, generation)
        if hot_file is None or hot_file.state not in {FileState.SPARSE, FileState.FINAL}:
            return None
        return hot_file if hot_file.size_bytes == size_bytes else None

    def _make_sparse(self, path: HotPath, size_bytes: int, block_hashes: Sequence[bytes]) -> None:
        """Under the writer lock: only one of any number of processes hashes, and nobody appends meanwhile."""
        rebuilt = rebuild_map(path, size_bytes, block_hashes)
        with self._structure_lock(path):
            if rebuilt is None:
                self._make(path, size_bytes=size_bytes, state=FileState.SPARSE)
            elif rebuilt.is_unchanged():
                self._place_map(path, size_bytes, rebuilt.state, rebuilt.marks)
                fsync_path(path.data.parent)

    def is_complete(self, asset_id: str, generation: int) -> bool:
        """Whether every byte is here. A few microseconds; safe on the event loop."""
        path = HotPath.of(self.root, asset_id, generation)
        try:
            header = read_header(OwnedFd(path.map, os.O_RDONLY))
            if header.state is FileState.FINAL:
                return path.data.stat().st_size >= (header.size_bytes or 0)
        except (FileNotFoundError, BadMap):
            return False
        hot_file = self.open(asset_id, generation) if header.state is FileState.SPARSE else None
        return hot_file is not None and hot_file.available_from(0) == hot_file.size_bytes

    def data_file(self, asset_id: str, generation: int) -> str:
        """Where the bytes of an asset lie, or would lie."""
        return str(HotPath.of(self.root, asset_id, generation).data)

    def remove(self, asset_id: str, generation: int) -> int:
        """Unlink; readers that have it open read on. Returns the bytes freed once they are done. Idempotent."""
        path = HotPath.of(self.root, asset_id, generation)
        if not path.data.parent.is_dir():
            return 0
        with self._structure_lock(path):
            return _unlink(path.map) + _unlink(path.data)

    def entries(self) -> Iterator[HotEntry]:
        """Every asset on the disk, in no order. Files that come and go meanwhile may be missed."""
        for folder in self.root.glob("[!.]*"):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
                for data in found:
                    name = parse_name(data.name)
                    entry = _entry(data, *name) if name else None
                    if entry is not None:
                        yield entry

    def asset_ids(self) -> Iterator[str]:
        """Of every file, by its name alone; twice where there are two generations."""
        for folder in self.root.glob("[!.]*"):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
                yield from (name[0] for entry in found if (name := parse_name(entry.name)) is not None)

    def usage(self) -> HotUsage:
        """How many files there are and what they take on the disk: a third of the work of ``entries``."""
        files = disk_bytes = 0
        for folder in self.root.glob("[!.]*"):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
                for entry in found:
                    is_map = entry.name.endswith(MAP_SUFFIX)
                    if is_map or parse_name(entry.name) is not None:
                        with suppress(FileNotFoundError):
                            disk_bytes += _allocated(entry.stat(follow_symlinks=False))
                            files += not is_map
        return HotUsage(files, disk_bytes)

    def scratch_dir(self, asset_id: str, attempt: int) -> Path:
        """A fresh folder on the same file system for files that must be finished (muxed) before they count.

        Folders of the same asset's earlier attempts are deleted: those attempts can no longer commit.
        """
        HotPath.of(self.root, asset_id, attempt)  # refuses an id that is not a plain name
        parent = self.root / SCRATCH_FOLDER / asset_id
        for old in parent.glob("*"):
            if int(old.name) <= attempt:
                shutil.rmtree(old, ignore_errors=True)
        fresh = parent / str(attempt)
        fresh.mkdir(parents=True)
        return fresh

    @property
    def _lock_file(self) -> Path:
        return self.root / LOCK_FILE

    def _path(self, asset_id: str, generation: int) -> HotPath:
        path = HotPath.of(self.root, asset_id, generation)
        if not path.data.parent.is_dir():
            with disk_full_reported():
                path.data.parent.mkdir(parents=True, exist_ok=True)
            fsync_path(self.root)
        return path

    def _structure_lock(self, path: HotPath) -> StructureLock:
        return StructureLock(self._lock_file, path.lock_offset)

    def _writer_lock(self, path: HotPath) -> RangeLock:
        lock = try_lock(self._lock_file, path.lock_offset + 1, 1)
        if lock is None:
            raise WriterBusy(f"{path.data.name} has a writer")
        return lock

    def _make(self, path: HotPath, *, size_bytes: int | None, state: FileState) -> None:
        """Replace whatever is there by an empty pair. Under the structure lock."""
        path.map.unlink(missing_ok=True)
        path.data.unlink(missing_ok=True)
        with disk_full_reported():
            data = OwnedFd(path.data, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            os.ftruncate(data.number, size_bytes or 0)
        try:
            self._place_map(path, size_bytes, state, b"")
        except HotStoreFull:
            path.data.unlink(missing_ok=True)  # without a map it would only be looked through, again and again
            raise

    def _place_map(self, path: HotPath, size_bytes: int | None, state: FileState, marks: bytes) -> None:
        """Under the structure lock, so that the temporary name is ours."""
        temporary = path.map.with_suffix(".tmp")
        try:
            with disk_full_reported():
                write_map(temporary, size_bytes=size_bytes, state=state, blocks=marks, sync=state is FileState.FINAL)
                temporary.replace(path.map)
        except HotStoreFull:
            temporary.unlink(missing_ok=True)
            raise


def _checked_block_count(size_bytes: int, block_hashes: Sequence[bytes]) -> int:
    blocks = block_count(size_bytes)
    if size_bytes < 1 or len(block_hashes) != blocks:
        raise ValueError(f"{len(block_hashes)} hashes for {size_bytes} bytes")
    return blocks


def _unlink(path: Path) -> int:
    try:
        freed = _allocated(path.stat())
        path.unlink()
    except FileNotFoundError:
        return 0
    return freed


def _entry(data: os.DirEntry[str], asset_id: str, generation: int) -> HotEntry | None:
    try:
        stat = data.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    header: Header | None = None
    map_bytes = 0
    with suppress(FileNotFoundError, BadMap):
        fd = OwnedFd(f"{data.path}{MAP_SUFFIX}", os.O_RDONLY)
        map_bytes = _allocated(os.fstat(fd.number))
        header = read_header(fd)
    return HotEntry(
        asset_id=asset_id,
        generation=generation,
        state=header.state if header else FileState.FAILED,
        size_bytes=header.size_bytes if header else None,
        disk_bytes=_allocated(stat) + map_bytes,
        last_read_at=header.last_read_at if header else stat.st_mtime,
    )


def _allocated(stat: os.stat_result) -> int:
    return stat.st_blocks * 512  # the unit of st_blocks, whatever the file system's block size
