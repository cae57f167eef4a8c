"""Jobs: one active fetch an asset, joined by everybody who asks; progress, cancelling, and picking up what was lost."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from django.conf import settings
from mongoengine import Q
from mongoengine.errors import NotUniqueError
from pymongo import ReturnDocument

from apps.core.clock import utcnow
from apps.core.errors import ApiError, Conflict, NotFound, NotReady
from apps.core.hot_names import sees_hot_store_of_workers
from apps.core.wake import publish
from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.providers.base import VideoInfo
from apps.downloads.quality import best_variant
from apps.downloads.selectors import active_job, find_job, latest_job, unannounced_jobs
from apps.downloads.services.claims import ensure_asset
from apps.downloads.services.info import get_kept_info
from apps.downloads.services.job_limits import raise_if_full, raise_if_too_early, raise_if_too_many_clips
from apps.downloads.services.joining import move_up, note_joined
from apps.downloads.services.key_limits import check_media, take_slot
from apps.downloads.services.queue import next_turn
from apps.downloads.services.turns import send_fetch
from apps.downloads.services.webhook_records import announce_end
from apps.downloads.variants import is_clip
from apps.keys.job_slots import free_job_slots
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind
from apps.telegram_cache.services.generations import cancel_queued, start_generation
from apps.telegram_cache.services.hot_bytes import can_be_read, look_again

log = structlog.get_logger(__name__)

JOIN_TRIES = 5
ANNOUNCED_AFTER_S = 5.0  # an end that nobody has announced by then was missed
ANNOUNCED_AT_ONCE = 200
ELSEWHERE = "This file is on another machine, and not in Telegram yet. Try again soon."
ELSEWHERE_RETRY_S = 5.0
_ALL = {"$concatArrays": [["$key_prefix"], {"$ifNull": ["$joined_by", []]}]}
_GONE = {"$setUnion": [{"$ifNull": ["$left_by", []]}, {"$ifNull": ["$too_large_for", []]}]}
_NOBODY_WAITS = {"$setIsSubset": [_ALL, _GONE]}


class Begun(NamedTuple):
    """A job, and the asset as it was when this caller made it; None when somebody else had made the job."""

    job: MediaJob
    asset: Asset | None = None


def ensure_job(
    *, key: AssetKey, info: VideoInfo, key_prefix: str, priority: JobPriority = JobPriority.INTERACTIVE
) -> MediaJob:
    """``begin_job``, for who has no use for the asset."""
    return begin_job(key=key, info=info, key_prefix=key_prefix, priority=priority).job


def begin_job(
    *, key: AssetKey, info: VideoInfo, key_prefix: str, priority: JobPriority = JobPriority.INTERACTIVE
) -> Begun:
    """The job that fetches this asset: the active one, or a new one whose task has been sent.

    Of any number of simultaneous callers one makes the job (unique index), all get the same. An asset that is
    finished already gives its last job (or an unsaved finished one). Raises the stored error of an asset that failed
    and may not be tried again yet, Overloaded when too many jobs wait, of all keys or of this one, and NotReady for a
    finished asset that may be in the hot store of the workers, when this process sees another one.
    """
    asset, is_new = ensure_asset(
        key,
        title=info.title,
        uploader=info.uploader,
        duration_s=info.duration_s,
        thumbnail=info.thumbnail,
        is_best=key.variant == best_variant(info, key.kind),
    )
    return _job_for(asset, key_prefix=key_prefix, priority=priority, is_new=is_new)


def retry_job(job: MediaJob, *, key_prefix: str) -> MediaJob:
    """Fetch again what a failed or cancelled job could not: a new job, or the one that another caller began meanwhile.

    Any other job is returned as it is. Raises as ``ensure_job`` does: a failed asset waits longer after each failure;
    and VideoTooLong or FileTooLarge, by what is known of the file and of its video.
    """
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        return job
    key = AssetKey(job.video_id, MediaKind(job.kind), job.variant)
    asset, info = ensure_asset(key)[0], get_kept_info(job.video_id)
    check_media(key_prefix, duration_s=asset.duration_s, size_bytes=asset.size_bytes)
    check_media(key_prefix, duration_s=info.duration_s if info else None, size_bytes=None)
    again = _job_for(asset, key_prefix=key_prefix, priority=JobPriority(job.priority or JobPriority.INTERACTIVE)).job
    note_joined(again, key_prefix=key_prefix)
    return again


def _job_for(asset: Asset, *, key_prefix: str, priority: JobPriority, is_new: bool = False) -> Begun:
    """``asset`` as it was a moment ago. ``is_new``: this caller has just made it, so it has no earlier job."""
    if asset.is_finished:
        if not is_lost(asset):
            done = {"state": JobState.DONE.value, "active": False, "stage": "done"}
            return Begun(latest_job(asset.id) or MediaJob(**_about(asset.key), **done))
        if not sees_hot_store_of_workers():
            raise NotReady(ELSEWHERE, retry_after_s=ELSEWHERE_RETRY_S)
        raise_if_too_early(asset)  # it could not be had anew a moment ago
        _start_over(asset)
    elif asset.state == AssetState.FAILED:
        raise_if_too_early(asset)
    if (job := active_job(asset.id)) is not None:
        take_slot(key_prefix, asset.id)
        if priority is JobPriority.INTERACTIVE:
            move_up(job, key_prefix=key_prefix)
        return Begun(job)
    raise_if_full(key_prefix)
    if is_clip(asset.variant):
        raise_if_too_many_clips(key_prefix)
    take_slot(key_prefix, asset.id)  # the last that may refuse: a place taken for nothing is missing for a while
    if not _queue(asset):
        asset = _asset_now(asset.id)
        if asset.state == AssetState.FAILED:  # meanwhile
            raise_if_too_early(asset)
    return _join_or_make(asset.key, key_prefix, priority, before=None if is_new else latest_job(asset.id))


def _queue(asset: Asset) -> bool:
    """Move an asset that nobody fetches to ``queued``; one that has failed only when it may be tried again. One
    conditional update, so that a failure since ``asset`` was read keeps its error and its time."""
    may_start = Q(state=AssetState.ABSENT.value) | Q(state=AssetState.FAILED.value) & (
        Q(retry_at=None) | Q(retry_at__lte=utcnow())
    )
    return bool(
        Asset.objects(Q(id=asset.id) & may_start).update_one(
            set__state=AssetState.QUEUED.value, unset__retry_at=1, unset__error_code=1, unset__error_message=1
        )
    )


def refetch_asset(asset_id: str) -> MediaJob:
    """Fetch a finished asset again under a new generation: its bytes in Telegram went bad. Idempotent.

    Raises NotFound for an unknown asset. An asset that is being fetched just gives its job.
    """
    asset = Asset.objects(id=asset_id).first()
    if asset is None:
        raise NotFound
    if asset.is_finished:
        _start_over(asset)
    job = active_job(asset_id) or _join_or_make(asset.key, "", JobPriority.BATCH, before=latest_job(asset_id)).job
    note_joined(job, key_prefix="")  # for itself: a warm-up that is cancelled, which is the server too, leaves it be
    return job


def fetch_missing(asset: Asset, *, key_prefix: str) -> MediaJob:
    """The job that fetches an asset which failed or was never fetched, at once: for people who may have mended what was
    wrong, so that the wait after a failure is over. Raises Overloaded as ``ensure_job`` does."""
    forget_wait(asset.id)
    asset = _asset_now(asset.id)
    job = _job_for(asset, key_prefix=key_prefix, priority=JobPriority.INTERACTIVE).job
    note_joined(job, key_prefix=key_prefix)
    return job


def forget_wait(asset_id: str) -> None:
    """Let an asset that failed be tried again at once."""
    Asset.objects(id=asset_id, state=AssetState.FAILED.value).update_one(unset__retry_at=1)


def is_lost(asset: Asset) -> bool:
    """Whether bytes of a finished asset are nowhere: neither in Telegram, in reach, nor in the hot store.

    Before it says so, it hashes what an earlier boot left of the file: that can take seconds.
    """
    store = HotStore(settings.ENV.hot_root)
    if store.is_complete(asset.id, asset.generation) or can_be_read(store, asset):
        return False
    look_again(store, asset)
    return not store.is_complete(asset.id, asset.generation) and not can_be_read(store, asset)


def _about(key: AssetKey) -> dict[str, str]:
    return {"asset_id": key.asset_id, "video_id": key.video_id, "kind": key.kind.value, "variant": key.variant}


def _start_over(asset: Asset) -> None:
    """One conditional update: of many callers one moves the asset to its next generation, the others change nothing."""
    if start_generation(asset, is_hot=HotStore(settings.ENV.hot_root).is_complete(asset.id, asset.generation)):
        log.warning("asset is fetched again", asset_id=asset.id, generation=asset.generation + 1)
        publish(f"asset:{asset.id}")


def _join_or_make(key: AssetKey, key_prefix: str, priority: JobPriority, *, before: MediaJob | None) -> Begun:
    """``before``: the asset's last job, whose bytes are gone on from."""
    job = MediaJob(
        **_about(key),
        key_prefix=key_prefix,
        asked_by=[key_prefix] if priority is JobPriority.INTERACTIVE else [],
        priority=priority.value,
        clip=is_clip(key.variant) or None,
        turn=next_turn(key_prefix, priority),
        resume=before.resume if before else {},
    )
    for _ in range(JOIN_TRIES):
        try:
            job.save(force_insert=True)
        except NotUniqueError:
            if (other := active_job(key.asset_id)) is not None:
                return Begun(other)
        else:
            now = _take_back_if_failed(job)
            send_fetch(job.id)
            publish(f"asset:{key.asset_id}")
            return Begun(job, now)
    raise Conflict("This video's job keeps changing. Try again.")


def _take_back_if_failed(job: MediaJob) -> Asset:
    """The fetch before this one may have failed between the look at its asset and the making of this job: then there
    is nothing to do yet. Raises the stored error, Conflict when it was removed. Returns the asset as it is now."""
    try:
        asset = _asset_now(job.asset_id)
        if asset.state == AssetState.FAILED:
            raise_if_too_early(asset)
    except ApiError:
        job.delete()
        raise
    return asset


def _asset_now(asset_id: str) -> Asset:
    """Raises Conflict when it was removed meanwhile."""
    asset: Asset | None = Asset.objects(id=asset_id).first()
    if asset is None:
        raise Conflict("This file was removed in this moment. Try again.")
    return asset


def requeue_job(job_id: str, *, delay_s: float) -> None:
    """Put a job that was picked, but could not begin, back in line."""
    picked = {"_id": job_id, "active": True, "attempts": 0}
    not_before = utcnow() + timedelta(seconds=delay_s)
    _jobs().update_one(picked, {"$set": {"state": JobState.QUEUED.value, "stage": "queued", "not_before": not_before}})
    send_fetch(job_id, delay_s=delay_s)


def start_job(job_id: str) -> MediaJob | None:
    """Note that an attempt begins. None when the job is no longer active.

    An attempt before it that nobody ended (``end_attempt``) is one in which the worker died: ``crashes`` counts those
    in a row in which no new byte had come.
    """
    now, has_died = utcnow(), {"$eq": ["$in_attempt", True]}
    crashes = {"$ifNull": ["$crashes", 0]}
    has_more = {"$gt": ["$bytes_done", "$crashed_at_bytes"]}
    begun = {
        "state": JobState.RUNNING.value,
        "stage": "connecting",
        "updated_at": now,
        "started_at": {"$ifNull": ["$started_at", now]},
        "attempts": {"$add": [{"$ifNull": ["$attempts", 0]}, 1]},
        "in_attempt": True,
        "crashes": {"$cond": [has_died, {"$cond": [has_more, 1, {"$add": [crashes, 1]}]}, crashes]},
        "crashed_at_bytes": {"$cond": [has_died, {"$max": ["$bytes_done", "$crashed_at_bytes"]}, "$crashed_at_bytes"]},
    }
    change = [{"$set": begun}, {"$unset": ["error_code", "error_message", "retry_at"]}]
    document = _jobs().find_one_and_update(
        {"_id": job_id, "active": True}, change, return_document=ReturnDocument.AFTER
    )
    return MediaJob._from_son(document) if document else None


def end_attempt(job_id: str) -> None:
    """The attempt ends in good order, though the job does not: a restart of the worker is no crash."""
    _jobs().update_one({"_id": job_id, "active": True}, {"$set": {"in_attempt": False}})


def update_job(job_id: str, **fields: Any) -> bool:
    """Set fields of an active job (progress, resume data, provider). False when it is not active any more: stop."""
    change = {"$set": {**fields, "updated_at": utcnow()}}
    return bool(_jobs().update_one({"_id": job_id, "active": True}, change).matched_count)


def finish_job(job_id: str, *, error: ApiError | None = None, retry_at: datetime | None = None) -> None:
    """End an active job, well or with ``error``. Idempotent. Its webhooks are owed from this very update on."""
    change = _ended()
    if error is None:
        change |= {"state": JobState.DONE.value, "stage": "done", "eta_s": 0.0}
    else:
        change |= {"state": JobState.FAILED.value, "error_code": error.code, "error_message": error.message}
        change |= {"retry_at": retry_at}
    document = _jobs().find_one_and_update({"_id": job_id, "active": True}, {"$set": change})
    if document:
        publish(f"asset:{document['asset_id']}")
        _announce_end(MediaJob._from_son(document))


def cancel_job(job_id: str, *, key_prefix: str | None = None, of_batch: bool = False) -> MediaJob:
    """Stop a job; its fetch sees it within about a second. Idempotent: a job that has ended is returned as it is.

    With ``key_prefix`` that key no longer waits for it, and the job stops only when no other key does. ``of_batch``:
    only what the key asked for in batches ends; when it asked for this file by itself as well, nothing changes.
    Raises NotFound for an unknown job, or one that this key never asked for.
    """
    job = find_job(job_id)
    if job is None or (key_prefix is not None and key_prefix not in (job.key_prefix, *job.joined_by)):
        raise NotFound
    stoppable: dict[str, Any] = {"_id": job_id, "active": True}
    if key_prefix is not None:
        leaving = {**stoppable, "asked_by": {"$ne": key_prefix}} if of_batch else stoppable
        _jobs().update_one(leaving, {"$addToSet": {"left_by": key_prefix}, "$pull": {"asked_by": key_prefix}})
        stoppable["$expr"] = _NOBODY_WAITS
    change = {"state": JobState.CANCELLED.value, **_ended()}
    document = _jobs().find_one_and_update(stoppable, {"$set": change})
    if document:
        cancel_queued(job.asset_id)
        publish(f"asset:{job.asset_id}")
        _announce_end(MediaJob._from_son(document))
    now = find_job(job_id) or job
    if not document and key_prefix is not None and key_prefix in now.left_by:
        free_job_slots([key_prefix], job.asset_id)
    return now


def fail_if_nobody_waits(job_id: str, error: ApiError) -> None:
    """End an active job with ``error`` when no key waits for it any more, and nothing of the server's own. Its asset
    can be fetched again at once. One conditional update: whoever joins meanwhile keeps it going."""
    change = {"state": JobState.FAILED.value, "error_code": error.code, "error_message": error.message, **_ended()}
    unwanted = {"_id": job_id, "active": True, "$expr": _NOBODY_WAITS}
    document = _jobs().find_one_and_update(unwanted, {"$set": change})
    if document:
        publish(f"asset:{document['asset_id']}")
        _announce_end(MediaJob._from_son(document))


def announce_missed() -> int:
    """Announce the ends of jobs whose process died right after noting them. Returns how many. Idempotent: what was
    announced in part has the same delivery ids."""
    missed = unannounced_jobs(ended_before=utcnow() - timedelta(seconds=ANNOUNCED_AFTER_S), limit=ANNOUNCED_AT_ONCE)
    for job in missed:
        _announce_end(job)
    return len(missed)


def _announce_end(job: MediaJob) -> None:
    free_job_slots(job.seen_by, job.asset_id)
    announce_end(job)
    _jobs().update_one({"_id": job.id}, {"$set": {"announced": True}})


def _ended() -> dict[str, Any]:
    return {"active": False, "finished_at": utcnow(), "updated_at": utcnow(), "announced": False}


def _jobs() -> Any:
    return MediaJob._get_collection()
