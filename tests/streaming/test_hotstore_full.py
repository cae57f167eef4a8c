"""The hot store on a disk that is really full."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.core.errors import Overloaded
from apps.core.room import room_of
from apps.streaming.hotstore import BLOCK_BYTES, FileState, HotStore, HotStoreFull
from apps.streaming.ports import StreamTarget
from apps.streaming.sparse import SparseFiles
from tests.small_disk import filled, free_bytes, small_disk
from tests.streaming.media import ASSET, block_hashes, make_bytes
from tests.waiting import wait_until

DATA = make_bytes(3 * BLOCK_BYTES)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def store(disk: Path) -> HotStore:
    return HotStore(disk / "hot")


def test_a_growing_file_never_takes_what_has_to_be_left(store: HotStore, disk: Path) -> None:
    left = room_of(disk).left_bytes
    with store.create(ASSET, 1, resume=False) as writer, filled(disk, leaving=left + 2 * BLOCK_BYTES + 100_000):
        writer.append(DATA[:BLOCK_BYTES])
        with pytest.raises(HotStoreFull):
            writer.append(DATA[BLOCK_BYTES : 2 * BLOCK_BYTES])
        assert writer.frontier == BLOCK_BYTES
        assert free_bytes(disk) >= left


def test_nor_does_a_block_that_comes_back(store: HotStore, disk: Path) -> None:
    left, hashes = room_of(disk).left_bytes, block_hashes(DATA)
    sparse = store.open_sparse(ASSET, 1, size_bytes=len(DATA), block_hashes=hashes)
    with filled(disk, leaving=left + 2 * BLOCK_BYTES + 100_000):
        sparse.put_block(2, DATA[2 * BLOCK_BYTES :], sha256=hashes[2])
        with pytest.raises(HotStoreFull):
            sparse.put_block(0, DATA[:BLOCK_BYTES], sha256=hashes[0])
        assert [sparse.has_block(block) for block in range(3)] == [False, False, True]
        assert free_bytes(disk) >= left
    sparse.put_block(0, DATA[:BLOCK_BYTES], sha256=hashes[0])
    assert sparse.view(0, BLOCK_BYTES) == DATA[:BLOCK_BYTES]


def test_a_file_that_cannot_be_made_leaves_nothing_behind(store: HotStore, disk: Path) -> None:
    with filled(disk):
        with pytest.raises(HotStoreFull):
            store.open_sparse(ASSET, 1, size_bytes=len(DATA), block_hashes=block_hashes(DATA))
        assert not list(store.entries())
        assert not [path for path in store.root.rglob("*") if path.is_file() and not path.name.startswith(".")]


def open_below(folder: Path) -> list[str]:
    own = Path("/proc/self/fd")
    names = [str(path.readlink()) for path in own.iterdir() if path.is_symlink()]
    return [name for name in names if name.startswith(str(folder))]


async def test_who_was_refused_keeps_no_file_open(store: HotStore, disk: Path) -> None:
    """One that is open takes room on the disk after it was removed."""
    target = StreamTarget(
        asset_id=ASSET, generation=1, size_bytes=len(DATA), mime="audio/mp4", file_name="x", attachment=False,
        block_hashes=tuple(block_hashes(DATA)), etag='"x"', key_prefix="p",
    )  # fmt: skip
    files = SparseFiles(store)
    gc.collect()
    gc.disable()
    try:
        with filled(disk):
            errors = []
            for _ in range(3):
                with pytest.raises(Overloaded) as refused:
                    await files.open(target)
                errors.append(refused.value)
            assert all(error.retry_after_s for error in errors)
            await asyncio.to_thread(wait_until, lambda: not open_below(store.root), timeout_s=20)
    finally:
        gc.enable()
    opened = await files.open(target)
    assert opened is not None
    assert opened.state is FileState.SPARSE
    opened.close()
