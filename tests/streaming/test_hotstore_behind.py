"""Hashing and syncing follow a growing file in threads: what arrives does not wait, and errors are told."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from itertools import pairwise

import pytest

from apps.streaming.hotstore import BLOCK_BYTES, HotStore, HotStoreFull
from apps.streaming.hotstore import writing as writing_module
from apps.streaming.hotstore.behind import Follower
from tests.streaming.media import block_hashes, make_bytes
from tests.waiting import wait_until

ASSET = "0123456789abcdef01234567"


def test_a_follower_does_each_byte_once_in_order_while_the_file_grows():
    seen: list[tuple[int, int]] = []
    follower = Follower(lambda start, stop: seen.append((start, stop)), step_bytes=10)
    for target in (3, 25, 25, 100):
        follower.advance(target)
    follower.catch_up(101)
    assert seen[0][0] == 0
    assert seen[-1][1] == 101
    assert all(before[1] == after[0] for before, after in pairwise(seen))
    assert all(0 < stop - start <= 10 for start, stop in seen)


def test_a_follower_that_gave_up_does_no_more():
    going_on, began = threading.Event(), threading.Event()
    done: list[int] = []

    def step(_start: int, stop: int) -> None:
        began.set()
        going_on.wait(20)
        done.append(stop)

    follower = Follower(step, step_bytes=1)
    follower.advance(5)
    assert began.wait(20)
    follower.give_up()
    going_on.set()
    wait_until(lambda: done == [1])
    follower.catch_up(1)
    assert done == [1]


def test_bytes_go_on_arriving_and_are_there_for_readers_while_the_disk_is_slow(store: HotStore, monkeypatch):
    monkeypatch.setattr(writing_module, "DURABLE_STEP_BYTES", BLOCK_BYTES)
    disk, asked = threading.Event(), threading.Event()
    real = os.fdatasync

    def slow(descriptor: int) -> None:
        asked.set()
        disk.wait(20)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    data = make_bytes(5 * BLOCK_BYTES + 77)
    with store.create(ASSET, 1, resume=False) as writer:
        for at in range(0, len(data), 300_000):
            writer.append(data[at : at + 300_000])
        assert asked.wait(20)
        hot_file = store.open(ASSET, 1)
        assert hot_file is not None
        assert hot_file.available_from(0) == len(data)
        disk.set()
        assert writer.finish() == block_hashes(data)
        assert writer.sha256_hex == hashlib.sha256(data).hexdigest()


def test_a_disk_that_is_much_slower_than_the_network_is_waited_for(store: HotStore, monkeypatch):
    monkeypatch.setattr(writing_module, "DURABLE_STEP_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(writing_module, "MAX_DOUBTFUL_BYTES", 2 * BLOCK_BYTES)
    with store.create(ASSET, 1, resume=False) as writer:
        for _ in range(7):
            writer.append(bytes(BLOCK_BYTES))
            assert writer.frontier - writer._map.durable < 2 * BLOCK_BYTES


def test_an_error_of_the_disk_is_not_lost(store: HotStore, monkeypatch):
    monkeypatch.setattr(writing_module, "DURABLE_STEP_BYTES", BLOCK_BYTES)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fdatasync", full)
    with store.create(ASSET, 1, resume=False) as writer:
        writer.append(bytes(BLOCK_BYTES))
        with pytest.raises(HotStoreFull):
            writer.finish()
