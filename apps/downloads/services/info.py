"""Metadata of videos: kept in MongoDB, asked for outside by one process at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from apps.core.clock import utcnow
from apps.core.errors import ApiError, InternalError, LiveNotSupported, error_from_code
from apps.downloads.documents import VideoInfoRecord
from apps.downloads.errors import CONTENT_ERRORS
from apps.downloads.providers.base import VideoInfo
from apps.downloads.providers.chain import provider_chain
from apps.downloads.selectors import find_info_record
from apps.downloads.services.flights import Flight

log = structlog.get_logger(__name__)

RESOLVE_TASK = "apps.downloads.tasks.resolve_info"
PICTURES_TASK = "apps.downloads.tasks.resolve_pictures"
RESOLVE_TIMEOUT_S = 25.0

FRESH = timedelta(hours=6)
FRESH_WHEN_NEW = timedelta(minutes=30)
NEW_FOR = timedelta(days=3)
"""A video of the last days still gets more formats, and its numbers move."""
STALE_GIVEN = timedelta(days=1)
KEPT = timedelta(days=7)

CONTENT_ERROR_KEPT = timedelta(minutes=10)
LIVE_KEPT = timedelta(minutes=2)
UPSTREAM_ERROR_KEPT = timedelta(seconds=15)
UPSTREAM_ERROR_KEPT_LONGEST = timedelta(hours=1)


def get_info(video_id: str) -> VideoInfo | None:
    """Metadata, or None: then call ``request_info``. Raises the recorded error while that is remembered.

    Metadata that has aged is given for one more day, and renewed in the background.
    """
    record = find_info_record(video_id)
    now = utcnow()
    if record is None or record.fresh_until + STALE_GIVEN <= now:
        return None
    if record.error_code:
        if record.fresh_until <= now:
            return None
        error = error_from_code(record.error_code, record.error_message or "")
        if error.retryable:
            error.retry_after_s = max(1.0, (record.fresh_until - now).total_seconds())
        raise error
    info = _read(record)
    if info is not None and record.fresh_until <= now:
        renew_info(video_id)
    return info


def get_info_with_pictures(video_id: str) -> VideoInfo | None:
    """As ``get_info``, but only from a source that tells codecs and frames; None: then call ``request_info`` for it."""
    info = get_info(video_id)
    if info is not None and info.tells_pictures:
        return info
    get_info(_failure_id(video_id))  # raises the recorded error
    return None


def get_kept_info(video_id: str) -> VideoInfo | None:
    """The last good answer, however old (KEPT at most): for when there is no asking for a newer one."""
    record = find_info_record(video_id)
    return _read(record) if record is not None and not record.error_code and record.expires_at > utcnow() else None


def was_asked_since(video_id: str, moment: datetime) -> bool:
    """Whether the sources have answered about this video since then, well or with an error."""
    record = find_info_record(video_id)
    return record is not None and record.asked_at is not None and record.asked_at > moment


def let_info_age(video_id: str, *, asked_before: datetime) -> None:
    """Have the next question go to the sources, unless they were asked since ``asked_before``. One conditional update,
    so any number of callers have them asked once."""
    old = {"_id": video_id, "$or": [{"asked_at": None}, {"asked_at": {"$lte": asked_before}}]}
    _collection().update_one(old, [{"$set": {"fresh_until": {"$min": ["$fresh_until", "$$NOW"]}}}])


def fresh_for_s(video_id: str) -> float:
    """How long what is on record will not be asked for again; 0 when it has aged."""
    record = _collection().find_one({"_id": video_id}, {"fresh_until": True})
    return max(0.0, float((record["fresh_until"] - utcnow()).total_seconds())) if record else 0.0


def request_info(video_id: str, *, patient: bool = False, with_pictures: bool = False) -> None:
    """See to it that somebody asks for this video's metadata. Cheap to call again and again while waiting.

    The outcome is announced under ``info:<video id>``, ``pictures:<video id>`` for ``with_pictures``. ``patient`` and
    Overloaded: see ``Flight.request``.
    """
    (_pictures_flight if with_pictures else _flight)(video_id).request(patient=patient)


def renew_info(video_id: str, *, patient: bool = False) -> None:
    """As ``request_info``, for callers that have an answer already: see ``Flight.renew``."""
    _flight(video_id).renew(patient=patient)


def resolve_info(video_id: str) -> None:
    """Ask the providers and record what they say, unless it is known by now or another process is asking."""
    with _flight(video_id).lead() as leads:
        if leads and not _is_known(video_id):
            _ask(video_id)


def resolve_pictures(video_id: str) -> None:
    """As ``resolve_info``, but only sources that tell codecs and frames are asked. A good answer is the video's
    metadata from then on; a failure is remembered beside it."""
    with _pictures_flight(video_id).lead() as leads:
        if leads and not _has_pictures(video_id):
            _ask(video_id, with_pictures=True)


def record_info(info: VideoInfo) -> None:
    """Keep a good answer: fresh for 6 hours (a new video: 30 minutes), kept for a week in case the sources fail."""
    _save(
        info.video_id,
        {
            "provider": info.provider,
            "info": info.model_dump(mode="json"),
            "error_code": None,
            "error_message": None,
            "fresh_until": utcnow() + _freshness(info),
            "expires_at": utcnow() + KEPT,
        },
    )


def record_info_error(video_id: str, error: ApiError) -> None:
    """Remember a failure: 10 minutes for what the video itself refuses (2 for a live stream or a premiere, which end),
    else 15 seconds, so that a storm asks once; longer when the source asked for that, but within an hour.

    An earlier good answer outlives a failure of the sources, and is given out meanwhile.
    """
    is_content = isinstance(error, CONTENT_ERRORS)
    until = utcnow() + _remembered(error)
    if not is_content:
        good = {"_id": video_id, "error_code": None, "expires_at": {"$gt": until}}
        if _collection().update_one(good, {"$set": {"fresh_until": until, "asked_at": utcnow()}}).matched_count:
            return
    failed: dict[str, Any] = {"provider": None, "info": {}, "error_code": error.code, "error_message": error.message}
    _save(video_id, {**failed, "fresh_until": until, "expires_at": until})


def _freshness(info: VideoInfo) -> timedelta:
    try:
        uploaded_at = datetime.strptime(info.upload_date, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:  # not every source says it
        return FRESH
    return FRESH_WHEN_NEW if utcnow() - uploaded_at < NEW_FOR else FRESH


def _remembered(error: ApiError) -> timedelta:
    if isinstance(error, LiveNotSupported):
        return LIVE_KEPT
    if isinstance(error, CONTENT_ERRORS):
        return CONTENT_ERROR_KEPT
    return min(max(UPSTREAM_ERROR_KEPT, timedelta(seconds=error.retry_after_s or 0)), UPSTREAM_ERROR_KEPT_LONGEST)


def _ask(video_id: str, **how: Any) -> None:
    record_id = _failure_id(video_id) if how else video_id
    try:
        info = provider_chain().resolve(video_id, timeout_s=RESOLVE_TIMEOUT_S, **how)
    except ApiError as error:
        log.info("no metadata", video_id=video_id, error=error.code, **how)
        record_info_error(record_id, error)
    except Exception:  # a fault of ours: whoever waits gets an answer, the log gets the cause
        log.exception("resolving failed", video_id=video_id)
        record_info_error(record_id, InternalError())
    else:
        record_info(info)


def _read(record: VideoInfoRecord) -> VideoInfo | None:
    try:
        return VideoInfo.model_validate(record.info)
    except ValidationError:  # written by another version of the program
        return None


def _is_known(video_id: str) -> bool:
    record = find_info_record(video_id)
    return (
        record is not None and record.fresh_until > utcnow() and (bool(record.error_code) or _read(record) is not None)
    )


def _has_pictures(video_id: str) -> bool:
    """Whether it is known, or known that nobody can say."""
    record = find_info_record(video_id)
    info = _read(record) if record is not None and not record.error_code else None
    return (
        info is not None and record is not None and record.fresh_until > utcnow() and info.tells_pictures
    ) or _is_known(_failure_id(video_id))


def _failure_id(video_id: str) -> str:
    return f"{video_id}:pictures"


def _pictures_flight(video_id: str) -> Flight:
    return Flight(kind="pictures", name=video_id, task=PICTURES_TASK, arguments=(video_id,))


def _flight(video_id: str) -> Flight:
    return Flight(kind="info", name=video_id, task=RESOLVE_TASK, arguments=(video_id,))


def _save(video_id: str, fields: dict[str, Any]) -> None:
    now = utcnow()
    change = {"$set": {**fields, "asked_at": now}, "$setOnInsert": {"created_at": now}}
    _collection().update_one({"_id": video_id}, change, upsert=True)


def _collection() -> Any:
    return VideoInfoRecord._get_collection()
