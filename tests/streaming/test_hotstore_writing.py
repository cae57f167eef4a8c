"""A growing file: one writer, readers that follow, and what is left after each way to stop."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
from pathlib import Path

import pytest

from apps.streaming.hotstore import (
    BLOCK_BYTES,
    FileState,
    HotFileRemoved,
    HotStore,
    HotStoreFull,
    HotWriter,
    WriterBusy,
    blockmap,
)
from apps.streaming.hotstore import writing as writing_module
from tests.streaming.media import ASSET, block_hashes, make_bytes, run_process, start_process


def pretend_another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockmap, "boot_id", lambda: (1, 2))


def write_all(store: HotStore, data: bytes, *, step: int = 300_000) -> tuple[bytes, ...]:
    with store.create(ASSET, 1, resume=False) as writer:
        for at in range(0, len(data), step):
            writer.append(data[at : at + step])
        return writer.finish()


class TestHotWriter:
    def test_hashing_again_what_is_there_can_be_called_off_and_leaves_the_file_free(self, store: HotStore) -> None:
        data = make_bytes(3 * BLOCK_BYTES)
        with store.create(ASSET, 1, resume=False) as writer:
            writer.append(data)
        looks = []

        def call_off() -> None:
            looks.append(1)
            if len(looks) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.create(ASSET, 1, resume=True, check=call_off)
        with store.create(ASSET, 1, resume=True) as writer:
            assert (writer.frontier, writer.finish()) == (len(data), block_hashes(data))

    def test_what_the_disk_cannot_read_any_more_is_an_error(
        self, store: HotStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with store.create(ASSET, 1, resume=False) as writer:
            writer.append(make_bytes(2 * BLOCK_BYTES))

        def broken(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            if offset >= BLOCK_BYTES:
                raise OSError(errno.EIO, "input/output error")
            return real(descriptor, buffers, offset)

        real = os.preadv
        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(OSError, match="input/output error"):
            store.create(ASSET, 1, resume=True)
        monkeypatch.setattr(os, "preadv", real)
        with store.create(ASSET, 1, resume=True) as writer:  # the lock was given up
            assert writer.frontier == 2 * BLOCK_BYTES

    def test_a_file_that_somebody_cuts_short_while_it_is_hashed_is_an_error_and_not_the_end_of_the_process(
        self, store: HotStore
    ) -> None:
        """By way of a mapping it would be a SIGBUS, as for bytes that the disk cannot read any more."""
        told = run_process(
            store.root,
            """
            import hashlib, os, types
            from apps.streaming.hotstore import behind

            class CutsTheFileShort:
                def update(self, piece):
                    os.truncate(store.data_file(ASSET, 1), 0)
                    hashlib.sha256(piece)

            behind.hashlib = types.SimpleNamespace(sha256=CutsTheFileShort)
            try:
                with store.create(ASSET, 1, resume=False) as writer:
                    writer.append(media.make_bytes(BLOCK_BYTES))
                    writer.finish()
            except OSError as error:
                say(error)
            """,
        )
        assert told == "the data file is shorter than its map says\n"

    @pytest.mark.parametrize("size", [1, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 77])
    def test_what_was_written_is_read_with_the_right_hashes(self, store: HotStore, size: int) -> None:
        data = make_bytes(size)
        with store.create(ASSET, 1, resume=False) as writer:
            writer.append(data[: size // 3])
            writer.append(data[size // 3 :])
            assert writer.finish() == block_hashes(data)
            assert writer.sha256_hex == hashlib.sha256(data).hexdigest()
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        assert (hot_file.state, hot_file.size_bytes) == (FileState.FINAL, size)
        assert hot_file.view(0, size) == data
        assert store.is_complete(ASSET, 1)

    def test_a_reader_follows_byte_by_byte_without_a_known_size(self, store: HotStore) -> None:
        data = make_bytes(2 * BLOCK_BYTES + 5)
        writer = store.create(ASSET, 1, resume=False)
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        assert (hot_file.state, hot_file.size_bytes, hot_file.available_from(0)) == (FileState.GROWING, None, 0)
        kept = []
        for at in range(0, len(data), 100_000):
            writer.append(data[at : at + 100_000])
            assert hot_file.available_from(at) == len(data[at : at + 100_000])
            kept.append(hot_file.view(at, at + hot_file.available_from(at)))
        assert b"".join(kept) == data
        with pytest.raises(ValueError, match="not here"):
            hot_file.view(0, len(data) + 1)
        assert not store.is_complete(ASSET, 1)
        writer.finish()
        assert (hot_file.state, hot_file.size_bytes) == (FileState.FINAL, len(data))

    def test_a_reader_in_another_process_sees_every_step(self, store: HotStore) -> None:
        data = make_bytes(BLOCK_BYTES + 10)
        with store.create(ASSET, 1, resume=False) as writer:
            writer.set_size(len(data))
            writer.append(data[:1234])
            output = run_process(
                store.root,
                """
                hot = store.open(ASSET, 1)
                say(f"{hot.state.name} {hot.size_bytes} {hot.available_from(0)} {hot.available_from(1000)}")
                say(bytes(hot.view(0, 1234)).hex())
                """,
            )
        assert output.split() == ["GROWING", str(len(data)), "1234", "234", data[:1234].hex()]

    def test_only_one_writer_among_threads_and_processes(self, store: HotStore) -> None:
        with store.create(ASSET, 1, resume=False):
            with pytest.raises(WriterBusy):
                store.create(ASSET, 1, resume=True)
            code = """
                try:
                    store.create(ASSET, 1, resume=False)
                except WriterBusy:
                    say("busy")
            """
            assert run_process(store.root, code).strip() == "busy"
            store.create(ASSET, 2, resume=False).close()
        store.create(ASSET, 1, resume=True).close()

    def test_a_killed_writer_leaves_its_bytes_for_the_next(self, store: HotStore) -> None:
        data = make_bytes(2 * BLOCK_BYTES)
        code = """
            writer = store.create(ASSET, 1, resume=False)
            writer.set_size(2 * BLOCK_BYTES)
            writer.append(media.make_bytes(2 * BLOCK_BYTES)[:1_500_000])
            say("written")
            sys.stdin.read()
        """
        with start_process(store.root, code) as process:
            assert process.stdout
            assert process.stdout.readline() == "written\n"
            process.kill()
        with store.create(ASSET, 1, resume=True) as writer:
            assert writer.frontier == 1_500_000
            assert writer.size_bytes == len(data)
            assert writer.read_back(1_400_000, 1_500_000) == data[1_400_000:1_500_000]
            writer.append(data[1_500_000:])
            assert writer.finish() == block_hashes(data)
            assert writer.sha256_hex == hashlib.sha256(data).hexdigest()

    def test_starting_over_gives_a_new_file_and_old_readers_read_on(self, store: HotStore) -> None:
        old, new = make_bytes(5000, seed=1), make_bytes(7000, seed=2)
        write_all(store, old)
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        write_all(store, new)
        assert hot_file.view(0, 5000) == old
        assert not hot_file.is_current
        newer = store.open(ASSET, 1)
        assert newer is not None
        assert newer.view(0, 7000) == new

    def test_a_failed_file_ends_its_readers_and_can_be_resumed(self, store: HotStore) -> None:
        writer = store.create(ASSET, 1, resume=False)
        writer.append(b"abc")
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        writer.fail()
        writer.close()
        assert hot_file.state is FileState.FAILED
        with store.create(ASSET, 1, resume=True) as again:
            assert (again.frontier, hot_file.state) == (3, FileState.GROWING)
            again.append(b"def")
            again.finish()
        assert hot_file.view(0, 6) == b"abcdef"

    def test_resuming_a_final_file_only_needs_finish(self, store: HotStore) -> None:
        data = make_bytes(BLOCK_BYTES + 1)
        hashes = write_all(store, data)
        with store.create(ASSET, 1, resume=True) as writer:
            assert writer.frontier == len(data)
            with pytest.raises(ValueError, match="more bytes"):
                writer.append(b"x")
            writer.fail()
            assert writer.finish() == hashes
        assert store.is_complete(ASSET, 1)

    def test_refuses_sizes_that_do_not_fit(self, store: HotStore) -> None:
        with store.create(ASSET, 1, resume=False) as writer:
            with pytest.raises(ValueError, match="bytes are there"):
                writer.finish()
            writer.append(b"12345")
            with pytest.raises(ValueError, match="cannot become"):
                writer.set_size(4)
            writer.set_size(6)
            writer.set_size(6)
            with pytest.raises(ValueError, match="cannot become"):
                writer.set_size(7)
            with pytest.raises(ValueError, match="bytes are there"):
                writer.finish()
            with pytest.raises(ValueError, match="more bytes"):
                writer.append(b"67")
            writer.append(b"6")
            writer.finish()

    def test_after_a_crash_of_the_machine_only_synced_bytes_count(
        self, store: HotStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writing_module, "DURABLE_STEP_BYTES", 2 * BLOCK_BYTES)
        data = make_bytes(4 * BLOCK_BYTES)
        with store.create(ASSET, 1, resume=False) as writer:
            for at in range(0, 3 * BLOCK_BYTES + 9, 50_000):
                writer.append(data[at : at + 50_000])
        pretend_another_boot(monkeypatch)
        assert store.open(ASSET, 1) is None
        with store.create(ASSET, 1, resume=True) as writer:
            assert 2 * BLOCK_BYTES <= writer.frontier < 2 * BLOCK_BYTES + 50_000
            hot_file = store.open(ASSET, 1)
            assert hot_file is not None
            assert hot_file.available_from(0) == writer.frontier
            assert not hot_file.has_block(2)
            writer.append(data[writer.frontier :])
            assert writer.finish() == block_hashes(data)

    def test_a_final_file_stands_after_a_crash_of_the_machine(
        self, store: HotStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_all(store, b"abc")
        pretend_another_boot(monkeypatch)
        assert store.is_complete(ASSET, 1)
        assert store.open(ASSET, 1) is not None

    def test_a_full_disk_is_an_error_and_the_bytes_before_it_stay(self, store: HotStore) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with store.create(ASSET, 1, resume=False) as writer:
            writer.append(b"a" * 5000)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            try:
                with pytest.raises(HotStoreFull):
                    writer.append(b"b" * 200_000)
                with pytest.raises(HotStoreFull):
                    writer.set_size(300_000)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert writer.frontier == 5000
            writer.append(b"c" * 10)
            writer.finish()
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        assert hot_file.view(0, 5010) == b"a" * 5000 + b"c" * 10

    def test_a_file_removed_while_it_was_written_is_not_reported_finished(self, store: HotStore) -> None:
        with store.create(ASSET, 1, resume=False) as writer:
            writer.append(b"abc")
            store.remove(ASSET, 1)
            with pytest.raises(HotFileRemoved):
                writer.finish()

    def test_the_map_grows_with_a_file_of_unknown_size(self, store: HotStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blockmap, "CAPACITY_STEP", 2)
        data = make_bytes(5 * BLOCK_BYTES + 1)
        writer: HotWriter = store.create(ASSET, 1, resume=False)
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        assert not hot_file.has_block(5)
        writer.append(data)
        writer.finish()
        assert all(hot_file.has_block(block) for block in range(6))
        assert not hot_file.has_block(6000)
        assert hot_file.view(0, len(data)) == data

    def test_data_is_on_the_disk_before_the_map_says_final(
        self, store: HotStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[tuple[str, FileState]] = []
        real_fsync = os.fsync

        def watch(fd: int) -> None:
            name = Path(f"/proc/self/fd/{fd}").readlink().name
            hot_file = store.open(ASSET, 1)
            assert hot_file is not None
            order.append((name, hot_file.state))
            real_fsync(fd)

        with store.create(ASSET, 1, resume=False) as writer:
            writer.append(b"abc")
            monkeypatch.setattr(os, "fsync", watch)
            writer.finish()
        assert order == [
            (f"{ASSET}.1", FileState.GROWING),
            (f"{ASSET}.1.map", FileState.FINAL),
            (ASSET[-2:], FileState.FINAL),
        ]
