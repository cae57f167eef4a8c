"""Eviction: what goes first, and what never goes."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command

from apps.core.errors import Conflict
from apps.core.hot_names import since_eviction_s
from apps.core.redis import redis_client
from apps.streaming.hotstore import HotEntry, HotStore, blockmap
from apps.telegram_cache import tasks
from apps.telegram_cache.clients.errors import TokenRefused
from apps.telegram_cache.documents import Asset, AssetState
from apps.telegram_cache.roster import roster
from apps.telegram_cache.services import evict_asset, evict_hot, eviction, pool, upload_asset
from apps.telegram_cache.services.bots import disable_bot, enable_bot
from apps.telegram_cache.services.channels import disable_channel
from apps.telegram_cache.services.upload import UploadResult
from tests.telegram_cache.conftest import CHANNEL_ID, MIB

LATER_S = 600.0


@pytest.fixture
def hot_store(hot_root) -> HotStore:
    return HotStore(django_settings.ENV.hot_root)


@pytest.fixture
def cached(store, make_asset):
    """Makes an asset that is in Telegram in full, and in the hot store."""

    def make(*, seed: int = 1) -> str:
        asset_id = make_asset(MIB, seed=seed).asset_id
        assert upload_asset(asset_id) is UploadResult.CACHED
        return asset_id

    return make


def ids(hot_store: HotStore) -> set[str]:
    return {entry.asset_id for entry in hot_store.entries()}


def test_within_the_bound_nothing_goes(cached, hot_store):
    asset_id = cached()
    assert evict_hot(max_bytes=10 * MIB, now=time.time() + LATER_S).removed == ()
    assert ids(hot_store) == {asset_id}


def read_at(hot_store: HotStore, asset_id: str, when: float, monkeypatch) -> None:
    """As if a reader had opened it then."""
    monkeypatch.setattr(blockmap, "time", SimpleNamespace(time=lambda: when))
    hot_store.open(asset_id, 1).close()
    monkeypatch.undo()


def test_the_least_recently_read_goes_first(cached, hot_store, monkeypatch):
    made = [cached(seed=seed) for seed in range(1, 4)]
    now = time.time()
    for minute, asset_id in enumerate((made[1], made[0], made[2]), start=2):
        read_at(hot_store, asset_id, now + minute * 60, monkeypatch)
    result = evict_hot(max_bytes=2 * MIB + MIB // 2, now=now + 3600)
    assert result.removed == (made[1],)
    assert result.freed_bytes >= MIB
    assert ids(hot_store) == {made[0], made[2]}


@pytest.mark.parametrize("state", [AssetState.READY, AssetState.UPLOADING])
def test_what_is_nowhere_else_never_goes(store, make_asset, hot_store, state):
    made = make_asset(MIB, state=state)
    result = evict_hot(max_bytes=1, now=time.time() + LATER_S)
    assert result.removed == ()
    assert result.still_over_bytes > 0
    assert ids(hot_store) == {made.asset_id}


def test_without_telegram_on_record_the_bound_alone_decides(mongo, telegram, make_asset, hot_store):
    make_asset(MIB)
    assert evict_hot(max_bytes=1, now=time.time() + LATER_S).removed
    assert ids(hot_store) == set()


def test_disabling_the_last_bot_or_channel_makes_nothing_disposable(store, make_asset, cached, hot_store):
    kept = {make_asset(MIB, seed=1).asset_id, cached(seed=2)}
    pool.note_error(TokenRefused("Unauthorized"), roster().bots[0])
    assert evict_hot(max_bytes=1, now=time.time() + LATER_S).removed == ()
    disable_bot("111111")
    disable_channel(str(CHANNEL_ID))
    assert evict_hot(max_bytes=1, now=time.time() + LATER_S).removed == ()
    assert ids(hot_store) == kept


def test_what_no_bot_can_bring_back_now_stays(store, cached, hot_store):
    asset_id = cached()
    second = store.add_bot(222222)
    disable_bot("111111")
    assert store.telegram.channels[CHANNEL_ID].admins.pop(second.bot_id)
    with pytest.raises(CommandError):
        call_command("telegram", "check", stdout=io.StringIO())
    assert evict_hot(max_bytes=1, now=time.time() + LATER_S).removed == ()  # no file_id, and no place to forward from
    with pytest.raises(Conflict, match="bring it back"):
        evict_asset(asset_id)
    enable_bot("111111")
    pool.cool_down("111111", 600)
    assert evict_hot(max_bytes=1, now=time.time() + LATER_S).removed == ()
    enable_bot("111111")
    assert evict_hot(max_bytes=1, now=time.time() + LATER_S).removed == (asset_id,)


def test_what_is_being_written_stays(store, hot_store):
    writer = hot_store.create("a" * 24, 1, resume=False)
    writer.append(b"x" * MIB)
    assert evict_hot(max_bytes=1, now=time.time() + LATER_S).removed == ()
    assert ids(hot_store) == {"a" * 24}
    writer.close()


def test_what_was_read_just_now_goes_last(cached, hot_store, monkeypatch):
    made = [cached(seed=seed) for seed in (1, 2)]
    now = time.time() + 3600
    read_at(hot_store, made[0], now - 10, monkeypatch)
    assert evict_hot(max_bytes=MIB + MIB // 2, now=now).removed == (made[1],)
    assert evict_hot(max_bytes=1, now=now).removed == (made[0],)


def test_low_disk_makes_room_too(cached, hot_store, monkeypatch):
    asset_id = cached()
    monkeypatch.setattr(eviction.shutil, "disk_usage", lambda _: SimpleNamespace(total=100 * 1024 * MIB, free=0))
    assert evict_hot(now=time.time() + LATER_S).removed == (asset_id,)


def test_files_of_no_asset_and_of_older_generations_go_after_an_hour(store, make_asset, hot_store):
    old = make_asset(MIB, seed=1, state=AssetState.CACHED)
    Asset._get_collection().update_one({"_id": old.asset_id}, {"$set": {"generation": 2}})
    unknown = make_asset(MIB, seed=2)
    Asset._get_collection().delete_one({"_id": unknown.asset_id})
    kept = make_asset(MIB, seed=3)
    assert evict_hot().stale_removed == 0
    assert evict_hot(now=time.time() + 2 * 3600).stale_removed == 2
    assert ids(hot_store) == {kept.asset_id}


def test_bytes_of_a_fetch_that_was_given_up_go_after_an_hour(store, make_asset, hot_store):
    made = make_asset(MIB, state=AssetState.CACHED)
    Asset._get_collection().update_one({"_id": made.asset_id}, {"$set": {"state": AssetState.FAILED.value}})
    with hot_store.create(made.asset_id, 1, resume=False) as writer:
        writer.append(b"some bytes")
        writer.fail()
    assert evict_hot().stale_removed == 0
    assert evict_hot(now=time.time() + 2 * 3600).stale_removed == 1


def test_abandoned_work_folders_go_after_an_hour(store, hot_store):
    folder = hot_store.scratch_dir("b" * 24, 1)
    (folder / "half.mp4").write_bytes(b"x")
    assert evict_hot().stale_removed == 0
    assert evict_hot(now=time.time() + 2 * 3600).stale_removed == 1
    assert not folder.exists()


def test_no_more_is_asked_of_mongodb_than_what_goes(store, make_asset, hot_store, monkeypatch):
    made = [make_asset(10, seed=seed, state=AssetState.CACHED).asset_id for seed in range(1, 41)]
    monkeypatch.setattr(eviction, "_BATCH", 4)
    monkeypatch.setattr(eviction, "telegram_is_set_up", lambda: False)
    asked: list[str] = []
    known = eviction.assets_in_state
    monkeypatch.setattr(eviction, "assets_in_state", lambda ids: known(asked.extend(wanted := list(ids)) or wanted))
    kept_bytes = sum(entry.disk_bytes for entry in hot_store.entries())
    removed = evict_hot(max_bytes=kept_bytes - 1, now=time.time() + LATER_S).removed
    assert len(removed) == 1
    assert len(asked) == 4 + 1  # one batch, and once more right before it goes
    assert ids(hot_store) == set(made) - set(removed)


def test_much_that_is_left_over_is_not_compared_with_everything(store, make_asset, hot_store, monkeypatch):
    for seed in range(1, 61):
        make_asset(10, seed=seed)
    Asset._get_collection().delete_many({"video_id": {"$lt": "video000031"}})
    compared: list[int] = []
    monkeypatch.setattr(HotEntry, "__eq__", lambda one, other: compared.append(1) or one is other)
    assert evict_hot(now=time.time() + 2 * 3600).stale_removed == 30
    assert len(ids(hot_store)) == 30
    assert len(compared) <= 60


def test_a_large_store_is_looked_through_in_120_runs_whenever_they_come(store, make_asset, hot_store, monkeypatch):
    for seed in range(1, 41):
        make_asset(10, seed=seed)
    Asset._get_collection().delete_many({"video_id": {"$lt": "video000021"}})
    monkeypatch.setattr(eviction, "_ASKED_AT_ONCE", 4)
    asked: list[int] = []
    kept = eviction.kept_generations
    monkeypatch.setattr(eviction, "kept_generations", lambda ids: kept(asked.append(len(found := list(ids))) or found))
    now = time.time() + 2 * 3600
    runs = [evict_hot(now=now).stale_removed for _ in range(120)]
    assert sum(runs) == 20
    assert len(ids(hot_store)) == 20
    assert max(asked) < 20


def test_who_runs_once_looks_through_all_of_a_large_store(store, make_asset, hot_store, monkeypatch):
    for seed in range(1, 41):
        make_asset(10, seed=seed)
    Asset._get_collection().delete_many({"video_id": {"$lt": "video000021"}})
    monkeypatch.setattr(eviction, "_ASKED_AT_ONCE", 4)
    assert evict_hot(now=time.time() + 2 * 3600, in_turns=False).stale_removed == 20


def test_an_empty_or_missing_store_is_fine(mongo, settings, tmp_path):
    settings.ENV = settings.ENV.model_copy(update={"hot_dir": tmp_path / "none"})
    assert evict_hot().removed == ()


@pytest.mark.usefixtures("redis_server")
class TestTheRegularRun:
    @pytest.fixture
    def said(self, caplog):
        """What was logged since the last look."""

        def look() -> list[tuple[str, str]]:
            found = [(each.levelname, each.msg["event"]) for each in caplog.records if isinstance(each.msg, dict)]
            caplog.clear()
            return [one for one in found if one[1].startswith("hot_store_")]

        caplog.set_level("INFO")
        return look

    def test_a_store_that_cannot_shrink_is_logged_when_that_begins_each_hour_and_when_it_ends(
        self, store, make_asset, hot_store, settings, said
    ):
        settings.ENV = settings.ENV.model_copy(update={"hot_max_bytes": MIB})
        made = make_asset(2 * MIB)
        for _ in range(3):
            eviction.keep_in_bounds()
        assert said() == [("WARNING", "hot_store_over_its_bound")]
        (key,) = redis_client().keys("yt:hot:over-said:*")
        assert 3500 < redis_client().ttl(key) <= 3600
        redis_client().delete(key)  # an hour later
        for _ in range(3):
            eviction.keep_in_bounds()
        assert said() == [("WARNING", "hot_store_still_over_its_bound")]
        hot_store.remove(made.asset_id, 1)
        for _ in range(3):
            eviction.keep_in_bounds()
        assert said() == [("INFO", "hot_store_within_its_bound_again")]
        make_asset(2 * MIB)
        eviction.keep_in_bounds()
        assert said() == [("WARNING", "hot_store_over_its_bound")]

    def test_of_many_workers_one_says_it(self, store, make_asset, hot_store, settings, said):
        settings.ENV = settings.ENV.model_copy(update={"hot_max_bytes": MIB})
        make_asset(2 * MIB)
        with ThreadPoolExecutor(8) as threads:
            for run in [threads.submit(eviction.keep_in_bounds) for _ in range(16)]:
                run.result()
        assert said() == [("WARNING", "hot_store_over_its_bound")]

    def test_doctor_knows_when_it_was(self, store, hot_store):
        assert since_eviction_s() is None
        tasks.evict_hot()
        assert since_eviction_s() < 60
