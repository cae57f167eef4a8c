"""Sparse files, shared mappings, block locks, and everything that can be wrong with what lies on the disk."""

from __future__ import annotations

import gc
import mmap
import os
import random
import threading
import time
from pathlib import Path

import psutil
import pytest

from apps.streaming.hotstore import BLOCK_BYTES, FileState, HotFile, HotStore, WriterBusy, WrongBlock, blockmap
from tests.streaming.media import (
    ASSET,
    block_hashes,
    block_of,
    make_bytes,
    run_process,
    start_process,
)
from tests.waiting import wait_until

SIZE = 3 * BLOCK_BYTES + 500
DATA = make_bytes(SIZE)
HASHES = block_hashes(DATA)


def open_sparse(store: HotStore) -> HotFile:
    return store.open_sparse(ASSET, 1, size_bytes=SIZE, block_hashes=HASHES)


def put(hot_file: HotFile, *blocks: int) -> None:
    for block in blocks:
        hot_file.put_block(block, block_of(DATA, block), sha256=HASHES[block])


def finish(store: HotStore, data: bytes = DATA, *, generation: int = 1) -> None:
    with store.create(ASSET, generation, resume=False) as writer:
        writer.append(data)
        writer.finish()


def mapped_lengths(store: HotStore) -> list[str]:
    """Address ranges in which this process has data files of the store mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if str(store.root) in line]


class TestSparseFile:
    def test_blocks_come_back_in_any_order(self, store: HotStore) -> None:
        hot_file = open_sparse(store)
        assert hot_file.state is FileState.SPARSE
        assert hot_file.available_from(0) == 0
        put(hot_file, 2)
        assert hot_file.available_from(2 * BLOCK_BYTES + 7) == BLOCK_BYTES - 7
        put(hot_file, 3, 1)
        assert hot_file.available_from(BLOCK_BYTES) == SIZE - BLOCK_BYTES
        assert not store.is_complete(ASSET, 1)
        put(hot_file, 0)
        assert store.is_complete(ASSET, 1)
        assert hot_file.view(0, SIZE) == DATA
        assert hot_file.available_from(SIZE) == hot_file.available_from(SIZE + 10**12) == 0

    def test_a_wrong_block_is_never_set(self, store: HotStore) -> None:
        hot_file = open_sparse(store)
        for wrong in (b"x" * BLOCK_BYTES, block_of(DATA, 0)[:-1], b"", block_of(DATA, 1)):
            with pytest.raises(WrongBlock):
                hot_file.put_block(0, wrong, sha256=HASHES[0])
        with pytest.raises(ValueError, match="no block"):
            hot_file.put_block(4, b"", sha256=HASHES[0])
        assert not hot_file.has_block(0)
        with pytest.raises(ValueError, match="not here"):
            hot_file.view(0, 1)

    def test_a_block_in_another_process_is_seen_at_once(self, store: HotStore) -> None:
        hot_file = open_sparse(store)
        code = f"""
            data = media.make_bytes({SIZE})
            hashes = media.block_hashes(data)
            hot = store.open_sparse(ASSET, 1, size_bytes={SIZE}, block_hashes=hashes)
            hot.put_block(1, media.block_of(data, 1), sha256=hashes[1])
        """
        run_process(store.root, code)
        assert hot_file.has_block(1)
        assert hot_file.view(BLOCK_BYTES, 2 * BLOCK_BYTES) == block_of(DATA, 1)

    def test_many_makers_at_once_share_one_file(self, store: HotStore) -> None:
        code = f"""
            data = media.make_bytes({SIZE})
            hashes = media.block_hashes(data)
            say("ready")
            sys.stdin.readline()
            hot = store.open_sparse(ASSET, 1, size_bytes={SIZE}, block_hashes=hashes)
            block = int(sys.argv[1])
            hot.put_block(block, media.block_of(data, block), sha256=hashes[block])
        """
        makers = [start_process(store.root, code, str(block)) for block in range(4)]
        for maker in makers:
            assert maker.stdout
            assert maker.stdout.readline() == "ready\n"
        for maker in makers:
            assert maker.stdin
            maker.stdin.write("go\n")
            maker.stdin.flush()
        for maker in makers:
            with maker:
                maker.communicate(timeout=120)
                assert maker.returncode == 0
        assert open_sparse(store).view(0, SIZE) == DATA

    def test_doubtful_blocks_are_hashed_before_they_count(
        self, store: HotStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hot_file = open_sparse(store)
        put(hot_file, 0, 1)
        hot_file.close()
        path = next(store.root.glob(f"*/{ASSET}.1"))
        with path.open("r+b") as file:
            file.seek(BLOCK_BYTES + 10)
            file.write(b"lost")
        monkeypatch.setattr(blockmap, "boot_id", lambda: (1, 2))
        assert store.open(ASSET, 1) is None
        assert not store.is_complete(ASSET, 1)
        again = open_sparse(store)
        assert [again.has_block(block) for block in range(4)] == [True, False, False, False]
        put(again, 1, 2, 3)
        assert again.view(0, SIZE) == DATA

    @pytest.mark.parametrize("damage", ["missing", "empty", "torn", "other version", "nonsense state", "short map"])
    def test_a_bad_map_is_rebuilt_from_the_record(self, store: HotStore, damage: str) -> None:
        finish(store)
        path = next(store.root.glob(f"*/{ASSET}.1.map"))
        content = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
        else:
            content[8] ^= damage == "other version"
            content[48] = 77 if damage == "nonsense state" else content[48]
            cut = {"empty": 0, "torn": 20, "short map": 4096}.get(damage, len(content))
            path.unlink()
            path.write_bytes(content[:cut])
        assert store.open(ASSET, 1) is None
        assert not store.is_complete(ASSET, 1)
        assert [entry.state for entry in store.entries()] == [FileState.FAILED]
        hot_file = open_sparse(store)
        assert hot_file.state is FileState.FINAL
        assert hot_file.view(0, SIZE) == DATA

    def test_a_data_file_cut_short_is_not_trusted(self, store: HotStore) -> None:
        finish(store)
        path = next(store.root.glob(f"*/{ASSET}.1"))
        os.truncate(path, 2 * BLOCK_BYTES)
        assert store.open(ASSET, 1) is None
        assert not store.is_complete(ASSET, 1)
        hot_file = open_sparse(store)
        assert [hot_file.has_block(block) for block in range(4)] == [True, True, False, False]

    def test_what_a_dead_fetch_left_is_used_when_the_record_is_known(self, store: HotStore) -> None:
        writer = store.create(ASSET, 1, resume=False)
        writer.append(DATA[: 2 * BLOCK_BYTES + 5])
        growing = open_sparse(store)
        assert growing.state is FileState.GROWING
        writer.close()
        hot_file = open_sparse(store)
        assert hot_file.state is FileState.SPARSE
        assert hot_file.available_from(0) == 2 * BLOCK_BYTES
        assert not growing.is_current

    def test_a_file_of_another_size_is_replaced(self, store: HotStore) -> None:
        finish(store, DATA[:100])
        hot_file = open_sparse(store)
        assert hot_file.size_bytes == SIZE
        assert hot_file.available_from(0) == 0

    def test_refuses_a_record_that_does_not_fit(self, store: HotStore) -> None:
        for size, hashes in ((0, ()), (SIZE, HASHES[:-1])):
            with pytest.raises(ValueError, match="hashes for"):
                store.open_sparse(ASSET, 1, size_bytes=size, block_hashes=hashes)


class TestBlockLocks:
    def test_one_filler_among_threads_and_processes(self, store: HotStore) -> None:
        hot_file = open_sparse(store)
        held = hot_file.lock_blocks(0, 2)
        assert held is not None
        code = "say(store.open(ASSET, 1).lock_blocks(1, 3) is None)"
        with held:
            assert hot_file.lock_blocks(1, 1) is None
            found: list[object] = []
            thread = threading.Thread(target=lambda: found.append(hot_file.lock_blocks(0, 1)))
            thread.start()
            thread.join()
            assert found == [None]
            assert hot_file.lock_blocks(2, 2) is not None
            assert run_process(store.root, code).strip() == "True"
        assert run_process(store.root, code).strip() == "False"

    def test_a_killed_filler_frees_its_blocks(self, store: HotStore) -> None:
        hot_file = open_sparse(store)
        code = """
            lock = store.open(ASSET, 1).lock_blocks(0, 4)
            say("locked")
            sys.stdin.read()
        """
        with start_process(store.root, code) as process:
            assert process.stdout
            assert process.stdout.readline() == "locked\n"
            assert hot_file.lock_blocks(0, 1) is None
            process.kill()
        wait_until(lambda: hot_file.lock_blocks(0, 1) is not None)


class TestSharing:
    def test_all_handles_share_one_mapping_and_the_last_close_frees_it(self, store: HotStore) -> None:
        finish(store)
        handles = [store.open(ASSET, 1) for _ in range(50)]
        for handle in handles:
            assert handle is not None
            handle.view(0, 10)
        assert len(mapped_lengths(store)) == 2  # data and map
        background = handles[0].share() if handles[0] else None
        assert background is not None
        for handle in handles:
            assert handle is not None
            handle.close()
            handle.close()
        assert background.view(0, 3) == DATA[:3]
        background.close()
        handles.clear()
        del handle
        assert mapped_lengths(store) == []
        with pytest.raises(ValueError, match="closed"):
            background.view(0, 1)

    def test_a_slice_outlives_close_remove_and_growth(self, store: HotStore) -> None:
        writer = store.create(ASSET, 1, resume=False)
        writer.append(DATA[:1000])
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        early = hot_file.view(0, 1000)
        writer.append(DATA[1000:])
        writer.finish()
        late = hot_file.view(0, SIZE)
        hot_file.close()
        store.remove(ASSET, 1)
        gc.collect()
        assert early == DATA[:1000]
        assert late == DATA
        assert hot_file.asset_id == ASSET

    def test_reading_on_after_removal(self, store: HotStore) -> None:
        hot_file = open_sparse(store)
        put(hot_file, 0)
        assert store.remove(ASSET, 1) >= BLOCK_BYTES
        assert store.remove(ASSET, 1) == 0
        assert store.open(ASSET, 1) is None
        put(hot_file, 1, 2, 3)
        assert hot_file.view(0, SIZE) == DATA
        fresh = open_sparse(store)
        assert not fresh.has_block(0)
        assert fresh.lock_blocks(0, 4) is not None

    def test_resident_memory_does_not_grow_with_the_file(self, store: HotStore) -> None:
        size = 96 * 1024 * 1024
        with store.create(ASSET, 1, resume=False) as writer:
            for _ in range(size // BLOCK_BYTES):
                writer.append(b"z" * BLOCK_BYTES)
            writer.finish()
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        process = psutil.Process()
        before = highest = process.memory_info().rss
        for at in range(0, size, 256 * 1024):
            piece = hot_file.view(at, at + 256 * 1024)
            assert piece[::4096].tobytes().count(b"z") == 64
            highest = max(highest, process.memory_info().rss)
        assert highest - before < 40 * 1024 * 1024

    def test_opening_while_the_file_is_replaced_gives_a_matching_pair_or_nothing(
        self, store: HotStore, tmp_path: Path
    ) -> None:
        code = """
            stop = Path(sys.argv[1])
            number = 0
            while not stop.exists():
                number += 1
                with store.create(ASSET, 1, resume=False) as writer:
                    writer.append(bytes([number % 251]) * (1000 + number % 7))
                    writer.finish()
                if number % 3 == 0:
                    store.remove(ASSET, 1)
        """
        stop = tmp_path / "stop"
        seen: set[int] = set()
        with start_process(store.root, code, str(stop)) as process:
            try:
                while len(seen) < 50 and process.poll() is None:
                    hot_file = store.open(ASSET, 1)
                    if hot_file is not None and hot_file.state is FileState.FINAL:
                        size = hot_file.size_bytes
                        assert size is not None
                        content = bytes(hot_file.view(0, size))
                        assert len(set(content)) == 1
                        seen.add(content[0])
            finally:
                stop.touch()
            assert process.wait(timeout=120) == 0
        assert len(seen) == 50


class TestHotStore:
    def test_adopts_a_finished_file(self, store: HotStore, monkeypatch: pytest.MonkeyPatch) -> None:
        scratch = store.scratch_dir(ASSET, 3)
        made = scratch / "muxed.mp4"
        made.write_bytes(DATA)
        store.adopt(ASSET, 1, made, block_hashes=HASHES)
        assert not made.exists()
        monkeypatch.setattr(blockmap, "boot_id", lambda: (1, 2))
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        assert (hot_file.state, hot_file.has_block(3)) == (FileState.FINAL, True)
        assert hot_file.view(0, SIZE) == DATA
        put(hot_file, 1)
        with pytest.raises(ValueError, match="hashes for"):
            store.adopt(ASSET, 2, next(store.root.glob(f"*/{ASSET}.1")), block_hashes=HASHES[1:])

    def test_does_not_adopt_over_a_live_writer(self, store: HotStore) -> None:
        made = store.scratch_dir(ASSET, 1) / "muxed.mp4"
        made.write_bytes(b"abc")
        with store.create(ASSET, 1, resume=False), pytest.raises(WriterBusy):
            store.adopt(ASSET, 1, made, block_hashes=[b""])

    def test_a_scratch_folder_is_fresh_and_replaces_those_of_earlier_attempts(self, store: HotStore) -> None:
        first = store.scratch_dir(ASSET, 1)
        (first / "left.bin").write_bytes(b"x")
        second = store.scratch_dir(ASSET, 2)
        assert (first.exists(), second.exists()) == (False, True)
        (second / "left.bin").write_bytes(b"x")
        assert list(store.scratch_dir(ASSET, 2).iterdir()) == []

    def test_lists_what_is_there(self, store: HotStore) -> None:
        started_at = time.time()
        assert list(store.entries()) == []
        finish(store)
        put(store.open_sparse(ASSET, 2, size_bytes=SIZE, block_hashes=HASHES), 0)
        store.create(ASSET, 3, resume=False).close()
        store.scratch_dir(ASSET, 1)
        entries = {entry.generation: entry for entry in store.entries()}
        assert {number: entry.state for number, entry in entries.items()} == {
            1: FileState.FINAL,
            2: FileState.SPARSE,
            3: FileState.GROWING,
        }
        assert [entries[number].size_bytes for number in (1, 2, 3)] == [SIZE, SIZE, None]
        assert entries[1].disk_bytes >= SIZE > entries[2].disk_bytes >= BLOCK_BYTES
        for entry in entries.values():
            assert entry.asset_id == ASSET
            assert started_at - 1 <= entry.last_read_at <= time.time() + 1

    def test_reading_is_noted_once_a_minute(self, store: HotStore, monkeypatch: pytest.MonkeyPatch) -> None:
        finish(store)
        start = next(store.entries()).last_read_at
        for ahead, noted in ((30, 0), (61, 61), (90, 61), (130, 130)):
            monkeypatch.setattr(blockmap.time, "time", lambda ahead=ahead: start + ahead)
            assert store.open(ASSET, 1) is not None
            assert abs(next(store.entries()).last_read_at - start - noted) <= 1

    @pytest.mark.parametrize("asset_id", ["", "a", "../../etc", "a/b", "ab.1", "é" * 24, "a" * 65, "ab\n"])
    def test_refuses_ids_that_are_not_plain_names(self, store: HotStore, asset_id: str) -> None:
        for use in (
            lambda: store.create(asset_id, 1, resume=False),
            lambda: store.open(asset_id, 1),
            lambda: store.remove(asset_id, 1),
            lambda: store.is_complete(asset_id, 1),
            lambda: store.scratch_dir(asset_id, 1),
        ):
            with pytest.raises(ValueError, match="not an asset id"):
                use()

    def test_nothing_is_there_at_first(self, store: HotStore) -> None:
        assert store.open(ASSET, 1) is None
        assert not store.is_complete(ASSET, 1)
        assert store.remove(ASSET, 1) == 0

    def test_any_order_of_blocks_and_reads_gives_the_same_bytes(self, store: HotStore) -> None:
        chance = random.Random(5)
        hot_file = open_sparse(store)
        order = list(range(4))
        chance.shuffle(order)
        for block in order:
            put(hot_file, block)
            for _ in range(50):
                start = chance.randrange(SIZE)
                stop = start + hot_file.available_from(start)
                assert hot_file.view(start, stop) == DATA[start:stop]

    def test_no_descriptor_is_left_open(self, store: HotStore) -> None:
        finish(store)
        process = psutil.Process()
        before = process.num_fds()
        for _ in range(20):
            hot_file = store.open(ASSET, 1)
            assert hot_file is not None
            hot_file.view(0, 5)
            hot_file.close()
            store.is_complete(ASSET, 1)
            list(store.entries())
            open_sparse(store).close()
        assert process.num_fds() == before
        assert mmap.PAGESIZE <= blockmap.HEADER_BYTES
