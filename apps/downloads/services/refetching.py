"""Fetches anew what the Telegram cache found to be nowhere any more."""

from __future__ import annotations

from apps.downloads.services.jobs import is_lost, refetch_asset
from apps.telegram_cache.selectors import assets_to_refetch, find_asset
from apps.telegram_cache.services import forget_refetch


def refetch_lost(*, limit: int = 5) -> int:
    """Begin a few of them, each as a new generation. Returns how many were begun. Idempotent."""
    begun = 0
    for asset_id in assets_to_refetch(limit):
        asset = find_asset(asset_id)
        if asset is not None and asset.is_finished and is_lost(asset):
            refetch_asset(asset_id)
            begun += 1
        forget_refetch(asset_id)
    return begun
