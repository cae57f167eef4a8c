"""Many files asked for at once: each entry is started in its turn, behind what people wait for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from celery import current_app
from kombu.exceptions import OperationalError

from apps.core.clock import utcnow
from apps.core.errors import ApiError, InvalidUrl, Overloaded, UpstreamTimeout
from apps.core.redis import redis_client
from apps.core.suspend import Suspend
from apps.downloads.documents import Batch, JobPriority
from apps.downloads.links import parse_video_id, watch_url
from apps.downloads.providers.listing import ListKind, ListQuestion
from apps.downloads.selectors import find_batch
from apps.downloads.services.lists import get_listing
from apps.downloads.services.media import MediaAsk, resolve_key, start_or_join
from apps.telegram_cache.documents import MediaKind

log = structlog.get_logger(__name__)

ADVANCE_TASK = "apps.downloads.tasks.advance_batch"
MAX_LINKS = 50
MAX_PLAYLIST_VIDEOS = 200
PLAYLIST_PAGE = 50
ADVANCE_EVERY_S = 1.0
MAX_ASKED_AT_ONCE = 10  # entries whose metadata is not known yet: the others are looked at in a later round
RESEND_S = 15  # a batch that nobody has advanced for so long has lost its task
GIVEN_UP_AFTER = timedelta(minutes=30)


def make_batch(
    links: list[str], *, kind: MediaKind, wish: str | None, key_prefix: str, truncated: bool = False
) -> Batch:
    """Keep the order and have it started. A link that is none gets its error at once; the others go on."""
    entries = [_new_entry(link) for link in links]
    batch = Batch(key_prefix=key_prefix, kind=kind.value, wish=wish, entries=entries, truncated=truncated)
    batch.save(force_insert=True)
    send_advance(batch.id)
    return batch


def playlist_links(playlist_id: str, *, waited_s: float) -> tuple[list[str], bool]:
    """The first MAX_PLAYLIST_VIDEOS of a playlist that can be fetched, and whether it has more.

    Raises Suspend while it is being read, and NotFound.
    """
    links: list[str] = []
    for page in range(1, MAX_PLAYLIST_VIDEOS // PLAYLIST_PAGE + 1):
        question = ListQuestion(kind=ListKind.PLAYLIST, subject=playlist_id, page=page, page_size=PLAYLIST_PAGE)
        listing = get_listing(question, waited_s=waited_s)
        links += [watch_url(video.video_id) for video in listing.videos if not video.live]
        if not listing.has_more:
            return links, False
    return links, True


def send_advance(batch_id: str, *, delay_s: float = 0) -> None:
    """Have the batch advanced. When the broker cannot take the task, the next look at the batch sends another."""
    redis_client().set(_sent_name(batch_id), 1, ex=RESEND_S)
    try:
        current_app.send_task(ADVANCE_TASK, [batch_id], countdown=delay_s or None, retry_policy={"max_retries": 1})
    except OperationalError as error:
        log.warning("task not sent", batch_id=batch_id, reason=type(error).__name__)


def revive(batch: Batch) -> None:
    """Send the task again of a batch that still has entries to start, but that nobody seems to advance."""
    if _waiting(batch) and not redis_client().exists(_sent_name(batch.id)):
        send_advance(batch.id)


def advance_batch(batch_id: str) -> None:
    """Start what can be started by now, and come back for the rest. Idempotent."""
    batch = find_batch(batch_id)
    if batch is None:
        return
    too_late = batch.created_at < utcnow() - GIVEN_UP_AFTER
    left = 0
    for number in _waiting(batch):
        left += not _start(batch, number, too_late=too_late)
        if left >= MAX_ASKED_AT_ONCE and not too_late:
            break
    if left:
        send_advance(batch_id, delay_s=ADVANCE_EVERY_S)


def _start(batch: Batch, number: int, *, too_late: bool) -> bool:
    """Whether the entry has an asset or an error now."""
    ask = MediaAsk(
        kind=MediaKind(batch.kind),
        video_id=batch.entries[number]["video_id"],
        wish=batch.wish,
        priority=JobPriority.BATCH,
    )
    try:
        key = resolve_key(ask, waited_s=0)
        state = start_or_join(key, key_prefix=batch.key_prefix, waited_s=0, priority=JobPriority.BATCH)
    except (Suspend, Overloaded):
        if not too_late:
            return False
        return _settle(batch, number, _error_fields(UpstreamTimeout()))
    except ApiError as error:
        return _settle(batch, number, _error_fields(error))
    return _settle(batch, number, {"asset_id": state.asset.id, "job_id": state.job.id if state.job else None})


def _settle(batch: Batch, number: int, fields: dict[str, Any]) -> bool:
    change = {f"entries.{number}.{name}": value for name, value in fields.items()}
    Batch._get_collection().update_one({"_id": batch.id}, {"$set": change})
    return True


def _waiting(batch: Batch) -> list[int]:
    """The numbers of the entries that have neither an asset nor an error."""
    return [
        number
        for number, entry in enumerate(batch.entries)
        if not entry.get("asset_id") and not entry.get("error_code")
    ]


def _new_entry(link: str) -> dict[str, Any]:
    try:
        return {"url": link, "video_id": parse_video_id(link)}
    except InvalidUrl as error:
        return {"url": link, "video_id": None, **_error_fields(error)}


def _error_fields(error: ApiError) -> dict[str, Any]:
    return {"error_code": error.code, "error_message": error.message}


def _sent_name(batch_id: str) -> str:
    return f"yt:batch:sent:{batch_id}"
