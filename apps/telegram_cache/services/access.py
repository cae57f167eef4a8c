"""Counts who uses what: eviction and /cache/stats go by it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from apps.telegram_cache.documents import Asset

logger = logging.getLogger(__name__)


def touch_asset(asset_id: str) -> None:
    """Count one use of an asset, now. One atomic update; an unknown asset is nothing."""
    Asset._get_collection().update_one({"_id": asset_id}, _used(1))


def touch_assets(uses: Mapping[str, int]) -> frozenset[str]:
    """Count so many uses of each asset, now. One round trip; unknown assets are nothing.

    Returns those that MongoDB refused to write, of which nothing is counted.
    """
    ids = list(uses)
    if ids:
        updates = [UpdateOne({"_id": asset_id}, _used(uses[asset_id])) for asset_id in ids]
        try:
            Asset._get_collection().bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            refusals = error.details["writeErrors"]
            codes = sorted({refusal["code"] for refusal in refusals})
            logger.error("MongoDB did not count uses of files", extra={"count": len(refusals), "codes": codes})
            return frozenset(ids[refusal["index"]] for refusal in refusals)
    return frozenset()


def _used(count: int) -> dict[str, Any]:
    return {"$inc": {"access_count": count}, "$set": {"last_accessed_at": datetime.now(UTC)}}
