"""Uploads an asset to Telegram, part by part: nothing recorded twice, a stored part never sent again."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import redis
import structlog
from pymongo.errors import PyMongoError

from apps.core.owners import make_owner
from apps.core.wake import publish
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services import care_records as care
from apps.telegram_cache.services import upload_records as records
from apps.telegram_cache.services.lease import LeaseKeeper, LeaseLost
from apps.telegram_cache.services.playable import post_playable
from apps.telegram_cache.services.uploader import TryLater, Uploader

log = structlog.get_logger(__name__)
GIVE_UP_AFTER = timedelta(hours=24)  # without one part stored
GIVE_UP_AFTER_TRIES = 12


class UploadResult(StrEnum):
    OFF = "off"  # no bot or no channel
    NOT_OURS = "not_ours"  # not due, nothing to do, or another worker has it
    CACHED = "cached"
    LATER = "later"  # the sweep goes on with it
    LOST = "lost"  # the lease went to another worker


def upload_asset(asset_id: str) -> UploadResult:
    """Send what is missing of a finished asset. Idempotent; any number of workers may call it at once.

    Returns within the time its requests take: a long wait that Telegram asks for is left to the sweep.
    """
    if not roster().can_upload:
        care.forget_queued(asset_id)  # the sweep sends it again once there is a bot and a channel
        return UploadResult.OFF
    owner = f"{make_owner()}:{secrets.token_hex(6)}"
    asset = records.claim_upload(asset_id, owner=owner)
    if asset is None:
        return UploadResult.NOT_OURS
    if _kills_its_workers(asset):
        _put_off(asset_id, owner, records.DIED, retry_s=None, counts=True)
        return UploadResult.LATER
    try:
        with LeaseKeeper(asset_id, owner=owner) as keeper:
            Uploader(asset, keeper).run()
    except LeaseLost:
        log.warning("upload_lease_lost", asset_id=asset_id)
        return UploadResult.LOST
    except TryLater as later:
        _put_off(asset_id, owner, str(later), retry_s=later.retry_s, counts=later.counts)
        return UploadResult.LATER
    except (redis.RedisError, PyMongoError) as error:
        _put_off(asset_id, owner, f"{type(error).__name__}: the database cannot be reached", retry_s=None, counts=True)
        return UploadResult.LATER
    except Exception as error:  # a fault of ours: the lease is given back, so that it is tried again later
        log.exception("upload_broke", asset_id=asset_id)
        _put_off(asset_id, owner, f"unexpected: {type(error).__name__}: {error}"[:300], retry_s=None, counts=True)
        return UploadResult.LATER
    publish(f"asset:{asset_id}")
    post_playable(asset_id)
    return UploadResult.CACHED


def _put_off(asset_id: str, owner: str, reason: str, *, retry_s: float | None, counts: bool) -> None:
    tries = asset.upload_attempts if (asset := find_asset(asset_id)) else 0
    if retry_s is None:
        retry_s = min(records.LONGEST_RETRY_S, records.FIRST_RETRY_S * 2 ** min(tries, 12))
    records.release_upload(asset_id, owner=owner, error=reason, retry_s=retry_s, counts=counts)
    if not counts:
        log.info("upload_waits", asset_id=asset_id, reason=reason, retry_s=retry_s)
        return
    log.warning("upload_put_off", asset_id=asset_id, reason=reason, retry_s=retry_s, tries=tries)
    alert = f"the upload was given up: {reason}"
    if care.give_up_upload(
        asset_id, failing_before=datetime.now(UTC) - GIVE_UP_AFTER, min_attempts=GIVE_UP_AFTER_TRIES, alert=alert
    ):
        log.error("upload_given_up", asset_id=asset_id, reason=reason)


def _kills_its_workers(asset: Asset) -> bool:
    """The last runs died, and nothing was stored for so long that it is to be given up."""
    is_long_ago = (asset.upload_failing_since or datetime.now(UTC)) <= datetime.now(UTC) - GIVE_UP_AFTER
    return bool(asset.upload_deaths) and is_long_ago and asset.upload_attempts >= GIVE_UP_AFTER_TRIES
