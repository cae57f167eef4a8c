"""Parts stored by way of a self-hosted Bot API server, while the public one is set: only out of reach."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from apps.core.errors import UpstreamError
from apps.downloads.services.jobs import is_lost, refetch_asset
from apps.downloads.services.media import Tier, tier_of
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.documents import Asset, AssetState, PartState
from apps.telegram_cache.reader import TelegramFiller
from apps.telegram_cache.services import evict_hot, upload_asset
from apps.telegram_cache.services.orphans import remove_orphans
from apps.telegram_cache.services.upload import UploadResult
from apps.telegram_cache.services.verifying import verify_asset
from tests.telegram_cache.conftest import MIB, make_due, open_sparse, put_anew, read_all, target_of

SIZE = 21 * MIB


def reload(asset_id: str) -> Asset:
    return Asset.objects.get(id=asset_id)


@pytest.fixture
def self_hosted(store, settings):
    """Switches the server: ``self_hosted(True)`` to one with --local, ``self_hosted(False)`` to the public one."""

    def switch(on: bool) -> None:
        store.telegram.local = on
        settings.ENV = settings.ENV.model_copy(update={"telegram_local_root": store.telegram.folder if on else None})

    switch(True)
    return switch


@pytest.fixture
def large(self_hosted, make_asset, part_bytes):
    part_bytes(2000 * MIB)
    made = make_asset(SIZE)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    part_bytes(19 * MIB)
    self_hosted(False)
    return made


async def test_nothing_is_condemned_and_going_back_is_enough(large, store, hot_root, filler, self_hosted):
    HotStore(hot_root).remove(large.asset_id, 1)
    target = target_of(large.asset_id)
    with closing(open_sparse(target)) as hot_file, pytest.raises(UpstreamError, match="self-hosted"):
        await filler.fill(target, hot_file, 0)
    result = await asyncio.to_thread(verify_asset, reload(large.asset_id))
    assert (result.bad, result.unread) == ((), (0,))
    asset = reload(large.asset_id)
    assert (asset.state, asset.parts[0].state, asset.refetch_reason) == (AssetState.CACHED, PartState.STORED, None)
    assert ["self-hosted" in alert.text for alert in alerts()] == [True]
    assert store.telegram.counts["getFile"] == 0
    self_hosted(True)
    again = TelegramFiller()
    assert await read_all(again, target) == large.data
    await again.aclose()
    assert alerts() == []


def test_the_hot_file_serves_it_and_stays(large, hot_root):
    assert tier_of(reload(large.asset_id)) is Tier.HOT
    assert evict_hot(max_bytes=0).removed == ()
    assert HotStore(hot_root).is_complete(large.asset_id, 1)


def test_who_asks_for_it_gets_it_fetched_anew_and_only_then_the_old_parts_go(large, store, hot_root, monkeypatch):
    monkeypatch.setattr("apps.downloads.services.jobs.send_fetch", lambda _job_id: None)
    HotStore(hot_root).remove(large.asset_id, 1)
    assert (tier_of(reload(large.asset_id)), is_lost(reload(large.asset_id))) == (Tier.EXTERNAL, True)
    refetch_asset(large.asset_id)
    put_anew(large.asset_id, large.data)
    remove_orphans(reload(large.asset_id))
    assert len(store.telegram.messages) == 1
    make_due(large.asset_id)
    assert upload_asset(large.asset_id) is UploadResult.CACHED
    HotStore(hot_root).remove(large.asset_id, 2)
    asset = reload(large.asset_id)
    assert (tier_of(asset), len(asset.parts), len(asset.orphans)) == (Tier.TELEGRAM, 2, 1)
