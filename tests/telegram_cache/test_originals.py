"""A stored file comes back from Telegram so that another can be made from it (apps/downloads/fetch/originals.py)."""

from __future__ import annotations

import pytest
from django.conf import settings

from apps.downloads.fetch.originals import bring_original
from apps.streaming.hotstore import HotStore, HotStoreFull
from apps.telegram_cache.documents import Asset


async def test_every_byte_is_brought_back(cached):
    hot_store, asset = HotStore(settings.ENV.hot_root), Asset.objects.get(id=cached.asset_id)
    path = hot_store.scratch_dir(asset.id, 1) / "original"
    await bring_original(hot_store, asset, path, keep_free_bytes=0)
    assert path.read_bytes() == cached.data
    assert hot_store.is_complete(asset.id, asset.generation)


async def test_not_when_the_disk_has_no_room_for_it(cached, telegram):
    hot_store, asset = HotStore(settings.ENV.hot_root), Asset.objects.get(id=cached.asset_id)
    asked = telegram.counts["getFile"]
    with pytest.raises(HotStoreFull):
        await bring_original(hot_store, asset, hot_store.scratch_dir(asset.id, 1) / "original", keep_free_bytes=2**60)
    assert telegram.counts["getFile"] == asked
