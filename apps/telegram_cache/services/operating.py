"""What an operator may have done to one stored asset: check it, finish its upload, send it again."""

from __future__ import annotations

from django.conf import settings

from apps.core.errors import Conflict, NotReady
from apps.core.queues import NotSent, send_task
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset, AssetState
from apps.telegram_cache.roster import roster
from apps.telegram_cache.services.care_records import make_due, mark_all_parts_bad
from apps.telegram_cache.services.queueing import request_upload

VERIFY_TASK = "apps.telegram_cache.tasks.verify_asset"
NOTHING_TO_USE = "There is no usable bot or channel. See the Telegram page."


def request_verification(asset: Asset) -> None:
    """Have a worker read every stored part back and compare it. Raises Conflict when nothing is stored, NotReady."""
    if not asset.is_in_telegram:
        raise Conflict("It is not in Telegram in full: there is nothing to verify.")
    try:
        send_task(VERIFY_TASK, asset.id)
    except NotSent:
        raise NotReady("The workers cannot be reached right now. Try again.") from None


def repair_upload(asset: Asset) -> None:
    """Finish an interrupted upload and store bad parts again, now. Raises Conflict when there is nothing to repair."""
    if not roster().can_upload:
        raise Conflict(NOTHING_TO_USE)
    if not make_due(asset.id):
        raise Conflict("There is nothing to repair: it is in Telegram in full, or not fetched yet.")
    request_upload(asset.id)


def send_again(asset: Asset) -> None:
    """Send every part anew, from the file in the hot store. Raises Conflict when that is not possible."""
    if not roster().can_upload:
        raise Conflict(NOTHING_TO_USE)
    if asset.state in (AssetState.READY, AssetState.UPLOADING):
        repair_upload(asset)
        return
    if not HotStore(settings.ENV.hot_root).is_complete(asset.id, asset.generation):
        raise Conflict("The whole file is not on this server. Play it to the end once, or fetch it again.")
    if not mark_all_parts_bad(asset, reason="sent again by an operator"):
        raise Conflict("It has changed meanwhile. Look at it again.")
    make_due(asset.id)
    request_upload(asset.id)
