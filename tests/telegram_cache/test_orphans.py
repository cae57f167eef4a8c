"""Messages that no part needs: noted, and removed where Telegram lets us."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from apps.core.redis import redis_client
from apps.downloads.services.jobs import refetch_asset
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.documents import Asset, Orphan, PartState, TelegramBot
from apps.telegram_cache.roster import forget_roster
from apps.telegram_cache.selectors import assets_with_orphans, cache_totals
from apps.telegram_cache.services import pool, queueing, sweep_uploads, upload_asset
from apps.telegram_cache.services.care_records import mark_part_bad
from apps.telegram_cache.services.channels import set_scratch_chat
from apps.telegram_cache.services.orphan_records import add_lost_message, add_orphan
from apps.telegram_cache.services.orphans import end_old_orphans, remove_orphans
from apps.telegram_cache.services.rekeying import rekey
from apps.telegram_cache.services.upload import UploadResult
from tests.telegram_cache.conftest import CHANNEL_ID, MIB, make_due, media, put_anew


def reload(asset_id: str) -> Asset:
    return Asset.objects.get(id=asset_id)


def replace_stored(store, made) -> None:
    """Have the asset stored a second time: the messages of the first time are no longer needed."""
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    refetch_asset(made.asset_id)
    put_anew(made.asset_id, media(len(made.data), seed=77))
    make_due(made.asset_id)
    assert upload_asset(made.asset_id) is UploadResult.CACHED


def noted_long_ago(asset_id: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    Asset._get_collection().update_one({"_id": asset_id}, {"$set": {"orphans.$[].noted_at": long_ago}})


def test_the_messages_of_an_older_generation_are_noted_and_removed_once_the_new_one_is_stored(
    store, make_asset, part_bytes
):
    part_bytes(MIB)
    made = make_asset(2 * MIB)
    replace_stored(store, made)
    assert len(reload(made.asset_id).orphans) == cache_totals().orphans == 2
    sweep_uploads()
    assert {message.message_id for message in store.telegram.messages.values()} == {
        part.message_id for part in reload(made.asset_id).parts
    }
    assert reload(made.asset_id).orphans == []


def test_what_telegram_does_not_let_us_delete_stays_on_the_list(store, make_asset):
    made = make_asset(MIB)
    replace_stored(store, made)
    store.channel.admins[store.bot.bot_id]["can_delete_messages"] = False
    assert remove_orphans(reload(made.asset_id)) == 0
    assert cache_totals().orphans == 1


def test_a_message_that_is_already_gone_leaves_the_list_when_an_administrator_says_so(store, make_asset):
    made = make_asset(MIB)
    replace_stored(store, made)
    store.telegram.messages.clear()
    rights = store.channel.admins[store.bot.bot_id]
    store.telegram.demote(store.bot, store.channel)
    assert remove_orphans(reload(made.asset_id)) == 0
    second = store.add_bot(222222)
    assert rights == store.channel.admins[second.bot_id]
    assert remove_orphans(reload(made.asset_id), now=datetime.now(UTC) + timedelta(minutes=2)) == 1
    assert cache_totals().orphans == 0


def test_the_message_of_a_bad_part_stays_until_the_part_is_stored_anew(store, make_asset, hot_root):
    made = make_asset(MIB)
    upload_asset(made.asset_id)
    part = reload(made.asset_id).parts[0]
    assert mark_part_bad(made.asset_id, generation=1, part=part, reason="found wrong")
    store.telegram.faults.add("sendDocument", status=413)
    assert upload_asset(made.asset_id) is UploadResult.LATER
    assert [orphan.reason for orphan in reload(made.asset_id).orphans] == ["bad"]
    assert remove_orphans(reload(made.asset_id)) == 0
    make_due(made.asset_id)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    assert remove_orphans(reload(made.asset_id)) == 1
    assert len(store.telegram.messages) == 1


def test_nothing_of_a_bad_part_is_given_up_when_its_bytes_are_not_here(store, make_asset, hot_root):
    made = make_asset(MIB)
    upload_asset(made.asset_id)
    part = reload(made.asset_id).parts[0]
    mark_part_bad(made.asset_id, generation=1, part=part, reason="found wrong")
    store.telegram.spoiled.add(store.bot.bot_id)
    HotStore(hot_root).remove(made.asset_id, 1)
    assert upload_asset(made.asset_id) is UploadResult.LATER
    kept = reload(made.asset_id).parts[0]
    assert (kept.state, kept.message_id, kept.file_ids) == (PartState.BAD, part.message_id, part.file_ids)
    assert reload(made.asset_id).orphans == []


def test_after_a_month_what_is_there_is_left_to_people_and_what_may_not_be_is_forgotten(store, make_asset):
    made = make_asset(MIB)
    replace_stored(store, made)
    store.channel.admins[store.bot.bot_id]["can_delete_messages"] = False
    (stored,) = reload(made.asset_id).parts
    add_lost_message(made.asset_id, stored, channel_id=str(CHANNEL_ID), reason="looking")
    add_orphan(made.asset_id, stored, message_id=None, reason="sent twice")
    now = datetime.now(UTC)
    end_old_orphans(now=now + timedelta(days=29))
    assert (cache_totals().orphans, cache_totals().orphans_left) == (3, 0)
    sweep_uploads()  # has its own hour
    assert cache_totals().orphans == 3
    month_ago = now - timedelta(days=31)
    Asset._get_collection().update_one({"_id": made.asset_id}, {"$set": {"orphans.$[].noted_at": month_ago}})
    add_orphan(made.asset_id, stored, message_id=None, reason="sent twice")
    redis_client().delete("yt:tg:last:old-orphans")
    sweep_uploads()
    left, young = reload(made.asset_id).orphans
    assert (left.message_id > 0, left.gave_up_at is not None) == (True, True)
    assert (young.message_id, young.gave_up_at) == (None, None)
    assert (cache_totals().orphans, cache_totals().orphans_left) == (2, 1)
    deletes = store.telegram.counts["deleteMessage"]
    assert remove_orphans(reload(made.asset_id), now=now + timedelta(minutes=1)) == 0
    assert store.telegram.counts["deleteMessage"] == deletes
    assert [asset.id for asset in assets_with_orphans()] == [made.asset_id]  # for the young one


class TestALateAnswer:
    """Telegram stores a file after its sender gave up, looked for it, and sent it again."""

    @pytest.fixture
    def late(self, store, make_asset):
        made = make_asset(MIB)
        upload_asset(make_asset(MIB, seed=2).asset_id)  # so that the newest id is known
        store.telegram.faults.add("sendDocument", name="cut_before_storing")
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        (orphan,) = reload(made.asset_id).orphans
        assert orphan.message_id is None
        return made, orphan

    def test_is_found_and_removed_later(self, store, late):
        made, orphan = late
        part = reload(made.asset_id).parts[0]
        caption = f"yt1|{made.asset_id}|0|{orphan.attempt_id}|{part.sha256[:16]}"
        store.telegram.sizes["AgADlate"] = MIB
        store.telegram._post(store.channel, store.bot, "AgADlate", caption, "x")
        assert remove_orphans(reload(made.asset_id)) == 0  # it could still be on its way
        noted_long_ago(made.asset_id)
        assert remove_orphans(reload(made.asset_id)) == 1
        assert "AgADlate" not in {message.file_unique_id for message in store.telegram.messages.values()}
        assert len(store.telegram.originals()) == 2
        assert reload(made.asset_id).orphans == []

    def test_that_never_comes_leaves_the_list_too(self, store, late):
        made, _ = late
        noted_long_ago(made.asset_id)
        assert remove_orphans(reload(made.asset_id)) == 1
        assert len(store.telegram.messages) == 2
        assert reload(made.asset_id).orphans == []


class TestWaiting:
    """What cannot be removed is tried again later and later."""

    def test_a_message_that_telegram_keeps_is_tried_twice_as_late_each_time_up_to_a_day(self, store, make_asset):
        made = make_asset(MIB)
        replace_stored(store, made)
        store.channel.admins[store.bot.bot_id]["can_delete_messages"] = False
        now, waits = datetime.now(UTC), []
        for number in range(1, 15):
            remove_orphans(reload(made.asset_id), now=now)
            assert store.telegram.counts["deleteMessage"] == number
            (orphan,) = reload(made.asset_id).orphans
            waits.append((orphan.next_try_at - orphan.tried_at).total_seconds())
            remove_orphans(reload(made.asset_id), now=orphan.next_try_at - timedelta(seconds=1))
            assert store.telegram.counts["deleteMessage"] == number
            now = orphan.next_try_at
        assert waits == [min(86_400, 60 * 2**number) for number in range(14)]
        assert assets_with_orphans() == []
        assert cache_totals().orphans == 1

    def test_where_no_bot_can_look_nobody_looks_for_ever_nor_much_at_once(self, store, make_asset):
        made = make_asset(MIB)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        part = reload(made.asset_id).parts[0]
        for number in range(5):
            part.attempt_id, part.after_message_id = f"{number:016d}", 0
            add_orphan(made.asset_id, part, message_id=None, reason="sent without an answer, and sent again")
        noted_long_ago(made.asset_id)
        BotApi(store.bot.token).send_text(chat_id=str(CHANNEL_ID), text="x")
        refused = {"ok": False, "description": "Bad Request: message can't be forwarded"}
        store.telegram.faults.add("forwardMessage", status=400, body=refused, times=1000)
        texts, now = [], datetime.now(UTC)
        for _ in range(8):
            before = store.telegram.counts["sendMessage"]
            remove_orphans(reload(made.asset_id), now=now)
            texts.append(store.telegram.counts["sendMessage"] - before)
            redis_client().delete(f"yt:tg:bucket:111111:{CHANNEL_ID}")  # an hour has passed there too
            now += timedelta(hours=1)
        assert (max(texts), sum(texts), texts[-1]) == (3, 5 * 3, 0)
        assert assets_with_orphans() == []
        assert all(orphan.gave_up_at for orphan in reload(made.asset_id).orphans)
        assert cache_totals().orphans == 5

    def test_removing_leaves_uploads_their_turns_and_waits_while_the_bot_rests(self, store, make_asset):
        made = make_asset(MIB)
        replace_stored(store, made)
        name = f"yt:tg:bucket:111111:{CHANNEL_ID}"
        before = redis_client().hget(name, "tokens")
        pool.cool_down("111111", 60)
        forget_roster()
        assert remove_orphans(reload(made.asset_id)) == 0
        assert store.telegram.counts["deleteMessage"] == 0
        pool.end_rest("111111")
        TelegramBot._get_collection().update_one({"_id": "111111"}, {"$unset": {"until": ""}})
        forget_roster()
        assert remove_orphans(reload(made.asset_id), now=datetime.now(UTC) + timedelta(hours=1)) == 1
        assert redis_client().hget(name, "tokens") == before
        assert redis_client().exists(f"{name}:deletes")


def with_orphan(number: int, message_id: int | None) -> None:
    fields = {"channel_id": str(CHANNEL_ID), "message_id": message_id, "reason": "copy", "noted_at": datetime.now(UTC)}
    orphan = Orphan(index=0, **fields)
    name = f"orphan{number:05d}"
    Asset(id=f"{number:024d}", video_id=name, kind="audio", variant="m4a", orphans=[orphan]).save()


def test_any_number_that_cannot_be_removed_keeps_the_others_waiting_for_nothing(store, monkeypatch):
    for number in range(45):  # nobody knows their message ids, and Telegram does not let the next be deleted
        with_orphan(number, None)
    locked = store.telegram.add_channel(-1009)
    locked.admins[store.bot.bot_id] = {"can_post_messages": True, "can_delete_messages": False}
    for number in range(100, 125):
        store.telegram._post(locked, store.bot, "AgADx", "", "x")
        with_orphan(number, number - 99)
    Asset.objects(id__gte=f"{100:024d}").update(set__orphans__0__channel_id="-1009")
    gone = [store.telegram._post(store.channel, store.bot, "AgADy", "", "y").message_id for _ in range(25)]
    for number, message_id in enumerate(gone, start=200):
        with_orphan(number, message_id)
    sweep_uploads()
    assert {message.chat_id for message in store.telegram.messages.values()} == {-1009}
    assert cache_totals().orphans == 45 + 25


def test_a_round_that_ran_out_of_time_goes_on_where_it_ended(store, monkeypatch):
    monkeypatch.setattr(queueing, "ORPHANS_FOR_S", 0.0)
    monkeypatch.setattr(queueing, "_is_time", lambda name, _every_s: name == "orphans")
    for number in range(3):
        with_orphan(number, store.telegram._post(store.channel, store.bot, "AgADy", "", "y").message_id)
        Asset.objects(id=f"{number:024d}").update(push__orphans=Orphan(index=1, channel_id="-1", message_id=7))
    for left in (5, 4, 3):
        sweep_uploads()
        assert cache_totals().orphans == left


def test_where_looking_for_them_takes_long_it_is_done_less_often(store, monkeypatch):
    def look_in_vain(*, after_id, limit):
        clock.now += 3.0
        return []

    clock = SimpleNamespace(now=time.monotonic())
    monkeypatch.setattr(queueing, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(queueing, "assets_with_orphans", look_in_vain)
    sweep_uploads()
    assert queueing.ORPHANS_EVERY_S < redis_client().ttl("yt:tg:last:orphans") <= 300


def test_a_copy_left_in_the_scratch_chat_is_noted_there(store, make_asset):
    made = make_asset(MIB)
    upload_asset(made.asset_id)
    scratch = store.telegram.add_channel(-1003)
    second = store.add_bot(222222)
    for bot in (store.bot, second):
        store.telegram.make_admin(bot, scratch, delete=False)
    set_scratch_chat(str(CHANNEL_ID), "-1003")
    assert all(not done.problem for done in rekey(["222222"]))
    (orphan,) = Asset.objects(id=made.asset_id).get().orphans
    assert (orphan.channel_id, orphan.message_id) == ("-1003", 1)
    sweep_uploads()
    assert (CHANNEL_ID, 1) in store.telegram.messages  # the stored part has the same number in its own channel
