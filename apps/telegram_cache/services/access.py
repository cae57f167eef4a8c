"""Counts who uses what: eviction and /cache/stats go by it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne

from apps.telegram_cache.documents import Asset


def touch_asset(asset_id: str) -> None:
    """Count one use of an asset, now. One atomic update; an unknown asset is nothing."""
    Asset._get_collection().update_one({"_id": asset_id}, _used(1))


def touch_assets(uses: Mapping[str, int]) -> None:
    """Count so many uses of each asset, now. One round trip; unknown assets are nothing."""
    if uses:
        updates = [UpdateOne({"_id": asset_id}, _used(count)) for asset_id, count in uses.items()]
        Asset._get_collection().bulk_write(updates, ordered=False)


def _used(count: int) -> dict[str, Any]:
    return {"$inc": {"access_count": count}, "$set": {"last_accessed_at": datetime.now(UTC)}}
