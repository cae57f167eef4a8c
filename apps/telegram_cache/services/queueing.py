"""Gets uploads going: at once when an asset is ready, again by the sweep until it is cached."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import cast

import structlog

from apps.core.places import place
from apps.core.queues import NotSent, send_task, waiting_messages
from apps.core.redis import redis_client
from apps.telegram_cache.documents import DISABLED_BY_OPERATOR, Asset, BotState
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import all_bots, all_channels, assets_with_orphans, playable_left
from apps.telegram_cache.services.bots import check_all
from apps.telegram_cache.services.care_records import forget_queued, mark_queued, queue_next_upload
from apps.telegram_cache.services.orphans import end_old_orphans, remove_orphans
from apps.telegram_cache.services.playable import post_playable
from apps.telegram_cache.services.pool import free_dead_slots
from apps.telegram_cache.services.upload_records import free_dead_uploads

log = structlog.get_logger(__name__)
UPLOAD_TASK = "apps.telegram_cache.tasks.upload_asset"
MAX_UPLOADS_PER_SWEEP = 50
MAX_WAITING = 100  # messages in the queue: what is due stays in MongoDB, in its order, until the workers come to it
QUEUED_AGAIN_AFTER_S = 120.0  # the queue is empty, so its message was lost
QUEUED_AGAIN_ANYWAY_S = 3600.0  # its message may well be among those that wait
CHECK_EVERY_S = 300
ORPHANS_EVERY_S = 60
ORPHANS_FOR_S = 20.0
ORPHANS_SHARE = 100  # looking for them takes a hundredth of the time at most
OLD_ORPHANS_EVERY_S = 3600
SLOW_WORK_S = 900  # a process that dies in the middle of it keeps the others from it for no longer
LAST = "yt:tg:last:"
ORPHANS_AFTER = "yt:tg:orphans:after"  # the asset that was looked at last


def request_upload(asset_id: str) -> None:
    """Have a worker upload a ready asset soon. Nothing when no bot or channel is configured. Raises nothing for a
    broker that is away: the sweep finds the asset later.
    """
    if roster().can_upload:
        mark_queued(asset_id)
        _send(asset_id)


def _send(asset_id: str) -> bool:
    try:
        send_task(UPLOAD_TASK, asset_id)
    except NotSent as error:
        log.warning("upload_not_queued", asset_id=asset_id, error=str(error))
        forget_queued(asset_id)
        return False
    return True


def sweep_uploads() -> int:
    """Queue uploads that are due (at most 50, and while fewer than 100 wait), and now and then ask about parked bots,
    post playable copies and remove orphans.

    Idempotent; several sweeps at once share the work. Returns how many were queued.
    """
    if _is_time("check", CHECK_EVERY_S) and _something_to_check():
        check_all()
    if not roster().can_upload:
        return 0
    free_dead_slots()
    if freed := free_dead_uploads():
        log.warning("uploads_of_dead_workers", count=freed)
    queued = _queue_due_uploads()
    _alone("slow", _do_slow_work)
    return queued


def _queue_due_uploads() -> int:
    waiting = waiting_messages()["upload"]
    again_after_s = QUEUED_AGAIN_ANYWAY_S if waiting else QUEUED_AGAIN_AFTER_S
    queued = 0
    while queued < min(MAX_UPLOADS_PER_SWEEP, MAX_WAITING - waiting):
        asset_id = queue_next_upload(again_after_s=again_after_s)
        if asset_id is None or not _send(asset_id):
            break
        queued += 1
    return queued


def _do_slow_work() -> None:
    """What waits for Telegram: never in more than one thread, so that it holds up no other care."""
    for unposted_id in playable_left(limit=5):
        post_playable(unposted_id)
    if _is_time("orphans", ORPHANS_EVERY_S):
        _remove_some_orphans()
    if _is_time("old-orphans", OLD_ORPHANS_EVERY_S):
        end_old_orphans()


def _remove_some_orphans() -> None:
    """Go on where the last round ended, for at most ORPHANS_FOR_S; after the last asset the next round begins anew.

    So those that Telegram does not let us delete keep nobody waiting, however many they are.
    """
    end_at = time.monotonic() + ORPHANS_FOR_S
    last = cast("bytes | None", redis_client().get(ORPHANS_AFTER))
    after_id = last.decode() if last else ""
    while page := _next_with_orphans(after_id):
        for asset in page:
            redis_client().set(ORPHANS_AFTER, asset.id)
            remove_orphans(asset, end_at=end_at)
            if time.monotonic() > end_at:
                return
        after_id = page[-1].id
    redis_client().delete(ORPHANS_AFTER)


def _next_with_orphans(after_id: str) -> list[Asset]:
    """Where that takes long, since very many were given up or wait, the next round comes only so much later."""
    began_at = time.monotonic()
    page = assets_with_orphans(after_id=after_id, limit=20)
    rest_s = math.ceil(ORPHANS_SHARE * (time.monotonic() - began_at))
    if rest_s > ORPHANS_EVERY_S:
        redis_client().expire(f"{LAST}orphans", rest_s)
    return page


def _is_time(name: str, every_s: int) -> bool:
    """Once in ``every_s`` among all processes."""
    return bool(redis_client().set(f"{LAST}{name}", b"1", nx=True, ex=every_s))


def _alone(name: str, work: Callable[[], None]) -> None:
    """Do it unless another process is doing it right now, or too much else that takes long holds this one's threads."""
    key = f"yt:tg:doing:{name}"
    with place(name) as is_free:
        if is_free and redis_client().set(key, b"1", nx=True, ex=SLOW_WORK_S):
            try:
                work()
            finally:
                redis_client().delete(key)


def _something_to_check() -> bool:
    """Bots or channels that were never checked, or that Telegram refused, may be well by now."""
    bots = [bot for bot in all_bots() if bot.reason != DISABLED_BY_OPERATOR]
    channels = all_channels()
    return bool(channels) and any(
        bot.checked_at is None or bot.barred or bot.state == BotState.DISABLED for bot in bots
    )
