"""Counts who uses what: eviction and /cache/stats go by it."""

from __future__ import annotations

from datetime import UTC, datetime

from apps.telegram_cache.documents import Asset


def touch_asset(asset_id: str) -> None:
    """Count one use of an asset, now. One atomic update; an unknown asset is nothing."""
    Asset._get_collection().update_one(
        {"_id": asset_id}, {"$inc": {"access_count": 1}, "$set": {"last_accessed_at": datetime.now(UTC)}}
    )
