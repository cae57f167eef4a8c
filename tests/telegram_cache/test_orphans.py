"""Messages that no part needs: noted, and removed where Telegram lets us."""

from __future__ import annotations

from apps.downloads.services.jobs import refetch_asset
from apps.telegram_cache.documents import Asset, Orphan
from apps.telegram_cache.selectors import cache_totals
from apps.telegram_cache.services import queueing, sweep_uploads, upload_asset
from apps.telegram_cache.services.channels import set_scratch_chat
from apps.telegram_cache.services.orphans import remove_orphans
from apps.telegram_cache.services.rekeying import rekey
from tests.telegram_cache.conftest import CHANNEL_ID, MIB


def test_the_messages_of_an_older_generation_are_noted_and_removed(store, make_asset, part_bytes):
    part_bytes(MIB)
    made = make_asset(2 * MIB)
    upload_asset(made.asset_id)
    refetch_asset(made.asset_id)
    assert len(Asset.objects(id=made.asset_id).get().orphans) == cache_totals().orphans == 2
    sweep_uploads()
    assert store.telegram.messages == {}
    assert Asset.objects(id=made.asset_id).get().orphans == []


def test_what_telegram_does_not_let_us_delete_stays_on_the_list(store, make_asset):
    made = make_asset(MIB)
    upload_asset(made.asset_id)
    refetch_asset(made.asset_id)
    store.channel.admins[store.bot.bot_id]["can_delete_messages"] = False
    assert remove_orphans(Asset.objects(id=made.asset_id).get()) == 0
    assert cache_totals().orphans == 1


def test_a_message_that_is_already_gone_leaves_the_list(store, make_asset):
    made = make_asset(MIB)
    upload_asset(made.asset_id)
    refetch_asset(made.asset_id)
    store.telegram.messages.clear()
    assert remove_orphans(Asset.objects(id=made.asset_id).get()) == 1
    assert cache_totals().orphans == 0


def with_orphan(number: int, message_id: int | None) -> None:
    orphan = Orphan(index=0, channel_id=str(CHANNEL_ID), message_id=message_id, reason="copy")
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
