"""Blocks that come back from Telegram to a disk that is really full."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apps.core.errors import Overloaded
from apps.core.room import room_of
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import AssetState
from apps.telegram_cache.services import evict_hot, eviction, make_room_now, upload_asset
from apps.telegram_cache.services.upload import UploadResult
from tests.small_disk import MIB, SIZE_BYTES, filled, free_bytes, small_disk
from tests.telegram_cache.conftest import read_all, target_of
from tests.waiting import Clock


@pytest.fixture
def hot_root(settings, tmp_path: Path) -> Iterator[Path]:
    """The folder of the hot store, empty, on a disk of its own."""
    with small_disk(tmp_path / "disk") as disk:
        settings.ENV = settings.ENV.model_copy(update={"hot_dir": disk / "hot"})
        settings.ENV.hot_root.mkdir()
        yield settings.ENV.hot_root


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(eviction, "time", clock)
    monkeypatch.setattr(eviction, "_in_vain_until", float("-inf"))
    return clock


def fill_with(make_asset, *, state: AssetState) -> list[str]:
    """Files of 3 MiB of the hot store until no other fits."""
    return [make_asset(3 * MIB, seed=seed, state=state).asset_id for seed in range(2, 9)]


async def test_others_leave_for_it(cached, make_asset, filler, hot_root):
    made = [make_asset(3 * MIB, seed=seed) for seed in range(2, 9)]
    assert all(upload_asset(one.asset_id) is UploadResult.CACHED for one in made)
    assert free_bytes(hot_root) < 3 * MIB
    assert await read_all(filler, target_of(cached.asset_id)) == cached.data
    assert len(list(HotStore(hot_root).entries())) < 1 + len(made)


async def test_where_none_may_leave_the_caller_is_told_to_come_back(cached, make_asset, filler, hot_root):
    kept = fill_with(make_asset, state=AssetState.READY)
    with pytest.raises(Overloaded, match="disk is full") as refused:
        await read_all(filler, target_of(cached.asset_id))
    assert refused.value.retry_after_s
    assert {entry.asset_id for entry in HotStore(hot_root).entries()} >= set(kept)
    assert free_bytes(hot_root) >= room_of(hot_root).left_bytes


async def test_what_was_in_vain_is_not_tried_for_each_block(cached, make_asset, filler, hot_root, monkeypatch, clock):
    fill_with(make_asset, state=AssetState.READY)
    runs: list[int] = []
    monkeypatch.setattr(eviction, "evict_hot", lambda **_: runs.append(1))
    for _ in range(3):
        with pytest.raises(Overloaded):
            await read_all(filler, target_of(cached.asset_id))
    assert len(runs) == 1
    clock.ahead_s = eviction.IN_VAIN_S + 1
    with pytest.raises(Overloaded):
        await read_all(filler, target_of(cached.asset_id))
    assert len(runs) == 2


async def test_a_file_that_was_removed_meanwhile_gives_its_room_back(cached, filler, hot_root):
    with filled(hot_root.parent, leaving=3 * MIB), pytest.raises(Overloaded):
        await read_all(filler, target_of(cached.asset_id))
    await filler.aclose()
    HotStore(hot_root).remove(cached.asset_id, 1)
    assert free_bytes(hot_root) > SIZE_BYTES - MIB


class TestMakeRoomNow:
    @pytest.fixture
    def runs(self, make_asset, hot_root, monkeypatch, clock) -> list[int]:
        """What each look through the store was asked for; it takes two seconds."""
        fill_with(make_asset, state=AssetState.READY)
        runs: list[int] = []

        def look(*, missing_bytes: int) -> None:
            runs.append(missing_bytes)
            clock.ahead_s += 2

        monkeypatch.setattr(eviction, "evict_hot", look)
        return runs

    def test_of_many_that_ask_at_once_one_looks(self, runs):
        with ThreadPoolExecutor(8) as threads:
            found = [one.result() for one in [threads.submit(make_room_now, 5 * MIB) for _ in range(16)]]
        assert (found, len(runs)) == ([False] * 16, 1)

    def test_who_needs_less_may_find_what_another_did_not(self, runs):
        assert [make_room_now(5 * MIB), make_room_now(6 * MIB), make_room_now(4 * MIB)] == [False] * 3
        assert len(runs) == 2

    def test_the_longer_it_takes_the_longer_it_rests(self, runs, clock):
        make_room_now(5 * MIB)
        clock.ahead_s += 2 * eviction.IN_VAIN_SHARE - 1
        make_room_now(5 * MIB)
        assert len(runs) == 1
        clock.ahead_s += 2
        make_room_now(5 * MIB)
        assert len(runs) == 2

    def test_room_that_is_there_needs_no_look(self, runs, hot_root):
        assert make_room_now(free_bytes(hot_root))
        assert runs == []


class TestMissingBytes:
    def test_files_leave_until_so_many_more_are_free(self, store, make_asset, hot_root):
        made = [make_asset(3 * MIB, seed=seed) for seed in range(2, 6)]
        assert all(upload_asset(one.asset_id) is UploadResult.CACHED for one in made)
        before = free_bytes(hot_root)
        assert len(evict_hot(missing_bytes=5 * MIB).removed) == 2
        assert free_bytes(hot_root) >= before + 5 * MIB

    def test_none_leaves_when_all_of_them_would_not_do(self, store, make_asset, hot_root):
        made = [make_asset(3 * MIB, seed=seed) for seed in range(2, 6)]
        assert all(upload_asset(one.asset_id) is UploadResult.CACHED for one in made)
        assert evict_hot(missing_bytes=20 * MIB).removed == ()
