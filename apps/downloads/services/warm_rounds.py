"""Fetches what is in warm-ups, a round every few seconds: within the limits, in quiet hours, behind everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog

from apps.core.clock import utcnow
from apps.core.errors import ApiError, Conflict, Overloaded, UpstreamTimeout, error_from_code
from apps.core.suspend import Suspend
from apps.downloads.documents import JobPriority, JobState
from apps.downloads.links import watch_url
from apps.downloads.providers.listing import ListKind, ListQuestion
from apps.downloads.selectors import find_job
from apps.downloads.services.flights import Flight, is_being_asked
from apps.downloads.services.lists import MAX_LISTED, get_listing
from apps.downloads.services.media import MediaAsk, Tier, request_media, tier_of
from apps.downloads.services.warm_limits import is_quiet, warm_limits
from apps.downloads.services.warm_ups import add_entries, cancel_entry
from apps.downloads.variants import MediaOptions
from apps.downloads.warm_documents import WarmEntryState, WarmState, WarmUp, WarmUpEntry, WarmUpLimits
from apps.downloads.warm_selectors import (
    bytes_fetched,
    count_started,
    fetching_entries,
    has_open_entries,
    running_warm_ups,
    waiting_entries,
    warm_counts,
)
from apps.telegram_cache.documents import MediaKind
from apps.telegram_cache.selectors import find_asset

log = structlog.get_logger(__name__)

LOOKED_AT = 50  # entries of one warm-up in one round
PLAYLIST_PAGE = 50
MAX_TRIES = 3
TRY_AGAIN_AFTER = timedelta(minutes=10)
ASKED_FOR = timedelta(minutes=30)
_ROUND = Flight(kind="warm-ups", name="round", task="", arguments=())


def advance_warm_ups() -> None:
    """One round. Of any number of processes one does it; the others return at once."""
    warm_ups = running_warm_ups()
    fetching = fetching_entries()
    if not warm_ups and not fetching:
        return
    with _ROUND.lead() as leads:
        if not leads:
            return
        for entry in fetching:
            with _by_itself(entry.warm_up_id):
                _look_at(entry)
        for warm_up in warm_ups:
            if warm_up.reading:
                with _by_itself(warm_up.id):
                    _read_playlist(warm_up)
        limits, now = warm_limits(), utcnow()
        places = _free_places(limits, now)
        for warm_up in warm_ups:
            with _by_itself(warm_up.id):
                if warm_up.any_hour or is_quiet(limits, now):
                    places = _start_some(warm_up, places, now)
                if not warm_up.reading and not has_open_entries(warm_up.id):
                    counts = warm_counts([warm_up.id])[warm_up.id]
                    done = {"set__state": WarmState.DONE.value, "set__finished_at": now, "set__counts": counts}
                    WarmUp.objects(id=warm_up.id, state=WarmState.RUNNING.value, reading=False).update_one(**done)


@contextmanager
def _by_itself(warm_up_id: str) -> Iterator[None]:
    """What goes wrong with one warm-up is logged, and is tried again in the next round."""
    try:
        yield
    except Exception:  # of whatever kind: a fault in one must not stop the others
        log.exception("warm-up failed", warm_up_id=warm_up_id)


def _free_places(limits: WarmUpLimits, now: datetime) -> int:
    """How many fetches may begin now."""
    in_this_hour = limits.max_per_hour - count_started(since=now - timedelta(hours=1))
    places = max(0, min(int(limits.at_once) - len(fetching_entries()), int(in_this_hour)))
    if places and bytes_fetched(since=now - timedelta(days=1)) >= limits.max_bytes_per_day:
        return 0  # a day's worth is only added up where it matters
    return places


def _start_some(warm_up: WarmUp, places: int, now: datetime) -> int:
    """Begin what there are places for; returns how many are left. Files that are there already take none."""
    if places > 0:
        for entry in waiting_entries(warm_up.id, now=now, limit=LOOKED_AT):
            places -= _start(warm_up, entry)
            if places <= 0:
                break
    return places


def _start(warm_up: WarmUp, entry: WarmUpEntry) -> bool:
    """Begin one entry. Whether it takes a place: it is being fetched now, or the sources are asked what it is."""
    ask = MediaAsk(
        kind=MediaKind(warm_up.kind),
        video_id=entry.video_id,
        wish=warm_up.wish,
        options=MediaOptions(**warm_up.options),
        priority=JobPriority.BATCH,
    )
    try:
        state = request_media(ask, key_prefix="", wait_s=0, waited_s=0)
    except Overloaded:  # the queue is full: waiting for a place is no failure
        return True
    except Suspend as pending:
        return not is_being_asked(pending.topic) or _keep_asking(entry)
    except ApiError as error:
        _fail(entry, error)
        return False
    about = {"asset_id": state.asset.id, "asked_at": None}
    if state.tier is not Tier.EXTERNAL:
        _settle(entry, WarmEntryState.DONE, **about, size_bytes=state.asset.size_bytes)
        return False
    job_id = state.job.id if state.job else None
    if not _settle(entry, WarmEntryState.FETCHING, **about, job_id=job_id, started_at=utcnow()):
        entry.job_id = job_id  # cancelled in this very moment
        cancel_entry(entry)
    return True


def _keep_asking(entry: WarmUpEntry) -> bool:
    now = utcnow()
    if entry.asked_at is None:
        _settle(entry, WarmEntryState.WAITING, asked_at=now)
    elif entry.asked_at < now - ASKED_FOR:
        _fail(entry, UpstreamTimeout())
        return False
    return True


def _look_at(entry: WarmUpEntry) -> None:
    """See what became of a fetch."""
    asset = find_asset(entry.asset_id)
    if asset is not None and tier_of(asset) is not Tier.EXTERNAL:
        _settle(entry, WarmEntryState.DONE, size_bytes=asset.size_bytes)
        return
    job = find_job(entry.job_id or "")
    if job is not None and job.active:
        return
    if job is not None and job.state == JobState.FAILED:
        _fail(entry, error_from_code(job.error_code or "", job.error_message or ""))
    elif job is not None and job.state == JobState.CANCELLED:
        _fail(entry, Conflict("The fetch of this file was cancelled."))
    else:
        _fail(entry, UpstreamTimeout())


def _fail(entry: WarmUpEntry, error: ApiError) -> None:
    """Note the error; one that may pass is tried again later, a few times."""
    about = {"error_code": error.code, "error_message": error.message, "tries": entry.tries + 1, "asked_at": None}
    if error.retryable and entry.tries + 1 < MAX_TRIES:
        _settle(entry, WarmEntryState.WAITING, **about, not_before=utcnow() + TRY_AGAIN_AFTER)
    else:
        _settle(entry, WarmEntryState.FAILED, **about)


def _settle(entry: WarmUpEntry, state: WarmEntryState, **fields: Any) -> bool:
    """Move an entry on. False when it is not any more as it was read: it was cancelled."""
    fields["state"] = state.value
    if state is WarmEntryState.DONE:
        fields |= {"error_code": None, "error_message": None}
    if state in (WarmEntryState.DONE, WarmEntryState.FAILED):
        fields["ended_at"] = utcnow()
    as_read = {"_id": entry.id, "state": entry.state}
    return bool(WarmUpEntry._get_collection().update_one(as_read, {"$set": fields}).matched_count)


def _read_playlist(warm_up: WarmUp) -> None:
    """Add the next page of a playlist to its entries."""
    page = warm_up.pages_read + 1
    if page * PLAYLIST_PAGE > MAX_LISTED:
        WarmUp.objects(id=warm_up.id).update_one(set__reading=False, set__truncated=True)
        return
    question = ListQuestion(kind=ListKind.PLAYLIST, subject=warm_up.playlist_id, page=page, page_size=PLAYLIST_PAGE)
    try:
        listing = get_listing(question, waited_s=0)
    except Suspend:
        return
    except ApiError as error:
        if not error.retryable or warm_up.created_at < utcnow() - ASKED_FOR:
            log.info("playlist of a warm-up not read", warm_up_id=warm_up.id, error=error.code)
            WarmUp.objects(id=warm_up.id).update_one(set__reading=False, set__problem=error.message)
        return
    links = [watch_url(video.video_id) for video in listing.videos if not video.live]
    add_entries(warm_up, links, first=warm_up.total, pages_read=page, reading=listing.has_more)
