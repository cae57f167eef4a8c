"""Messages that no part needs: noted, and removed where Telegram lets us."""

from __future__ import annotations

from apps.downloads.services.jobs import refetch_asset
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.selectors import cache_totals
from apps.telegram_cache.services import sweep_uploads, upload_asset
from apps.telegram_cache.services.orphans import remove_orphans
from tests.telegram_cache.conftest import MIB


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
