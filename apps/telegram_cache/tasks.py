"""Background work of the cache. Every task is idempotent and takes ids only."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from apps.core.tunables import verify_per_night
from apps.telegram_cache import services
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services import verifying


@shared_task(name="apps.telegram_cache.tasks.upload_asset")
def upload_asset(asset_id: str) -> None:
    services.upload_asset(asset_id)


@shared_task(name="apps.telegram_cache.tasks.sweep_uploads")
def sweep_uploads() -> None:
    services.sweep_uploads()


@shared_task(name="apps.telegram_cache.tasks.verify_sample")
def verify_sample() -> None:
    if most := verify_per_night():
        verifying.verify_sample(max_assets=most)


@shared_task(name="apps.telegram_cache.tasks.verify_asset")
def verify_asset(asset_id: str) -> None:
    """Asked for by an operator. Bad parts are stored again by the sweep."""
    asset = find_asset(asset_id)
    if asset is not None:
        verifying.verify_asset(asset)


@shared_task(name="apps.telegram_cache.tasks.evict_hot")
def evict_hot() -> None:
    services.keep_in_bounds()


@worker_ready.connect
def look_for_left_uploads(**_: Any) -> None:
    """Go on with what a killed worker left, without waiting for the next sweep."""
    sweep_uploads.delay()
