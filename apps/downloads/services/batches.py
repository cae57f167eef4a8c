"""Many files asked for at once: each entry is started in its turn, behind what people wait for."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from apps.core.clock import utcnow
from apps.core.errors import (
    ApiError,
    InvalidUrl,
    KeyDisabled,
    KeyExpired,
    KeyInvalid,
    NotFound,
    Overloaded,
    TooManyJobs,
    UpstreamTimeout,
)
from apps.core.suspend import Suspend
from apps.downloads.documents import Batch, JobPriority, JobState
from apps.downloads.links import parse_video_id, watch_url
from apps.downloads.providers.listing import ListKind, ListQuestion
from apps.downloads.selectors import (
    count_open_batches,
    find_batch,
    jobs_by_id,
    waits_in_another_batch,
)
from apps.downloads.services.batch_turns import is_in_turn, is_latest, lane, send_advance, send_next
from apps.downloads.services.flights import is_being_asked
from apps.downloads.services.jobs import cancel_job
from apps.downloads.services.key_limits import grant_of
from apps.downloads.services.lists import get_listing
from apps.downloads.services.media import MediaAsk, resolve, start_or_join
from apps.downloads.variants import AS_IT_COMES, MediaOptions
from apps.telegram_cache.documents import MediaKind

MAX_LINKS = 50
MAX_PLAYLIST_VIDEOS = 200
PLAYLIST_PAGE = 50
ADVANCE_EVERY_S = 1.0
MAX_OPEN = 50  # batches of one key that are not all started
FULL_RETRY_S = 60.0
MAX_ASKED_AT_ONCE = 4  # entries whose metadata is not known yet: the others are looked at in a later round
SLOT_EVERY_S = 5.0  # when all that is missing is a free place among the key's fetches, or in the queue
MAX_TRIES = 3
TRY_AGAIN_AFTER = timedelta(minutes=1)  # an error that may pass
METADATA_PATIENCE = timedelta(minutes=30)  # from the first question about an entry
SLOT_PATIENCE = timedelta(days=1)  # from the making of the batch; then the entry fails with the reason it waits for


class _Look(Enum):
    """What an entry waits for that cannot be started yet."""

    ASKED = "metadata"
    UNASKED = "its turn to be asked for"
    FULL = "a place among the fetches"
    LATER = "its next try"


LOOK_AGAIN_S = {
    _Look.ASKED: ADVANCE_EVERY_S,
    _Look.UNASKED: SLOT_EVERY_S,
    _Look.FULL: SLOT_EVERY_S,
    _Look.LATER: SLOT_EVERY_S,
}


def make_batch(
    links: list[str],
    *,
    kind: MediaKind,
    wish: str | None,
    key_prefix: str,
    options: MediaOptions = AS_IT_COMES,
    truncated: bool = False,
) -> Batch:
    """Keep the order and have it started. A link that is none gets its error at once; the others go on.

    Raises TooManyJobs when the key has MAX_OPEN batches that are not all started.
    """
    batch = Batch(
        key_prefix=key_prefix,
        kind=kind.value,
        wish=wish,
        options=options.as_document(),
        entries=[_new_entry(link) for link in links],
        truncated=truncated,
    )
    batch.open = bool(_waiting(batch))
    batch.save(force_insert=True)
    if count_open_batches(key_prefix=key_prefix, limit=MAX_OPEN + 1) > MAX_OPEN:  # looked at after: no race passes it
        batch.delete()
        text = f"This key has {MAX_OPEN} batches that are not all started yet, which is the limit."
        raise TooManyJobs(text, retry_after_s=FULL_RETRY_S)
    if batch.open:
        send_next(key_prefix)
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


def cancel_batch(batch: Batch) -> Batch:
    """End what has not ended: entries that wait are not started any more, fetches stop that nobody else waits for.

    Files that are there stay. Another batch of the same key counts as somebody else, and so does a request of the same
    key for the file by itself. Idempotent.
    """
    cancelled = {"cancelled_at": utcnow(), "open": False}
    _collection().update_one({"_id": batch.id, "cancelled_at": None}, {"$set": cancelled})
    batch = find_batch(batch.id) or batch  # with what was started before the line above
    jobs = jobs_by_id([entry["job_id"] for entry in batch.entries if entry.get("job_id")])
    not_begun: dict[str, bool] = {}
    for number, entry in enumerate(batch.entries):
        job = jobs.get(entry.get("job_id") or "")
        if job is not None and job.active:
            _cancel_entry(batch, number, job.id)
        elif not entry.get("asset_id") and not entry.get("error_code"):
            not_begun[f"entries.{number}.cancelled"] = True
    if not_begun:
        _collection().update_one({"_id": batch.id}, {"$set": not_begun})
    send_next(batch.key_prefix)
    return find_batch(batch.id) or batch


def _cancel_entry(batch: Batch, number: int, job_id: str) -> None:
    if not waits_in_another_batch(job_id, key_prefix=batch.key_prefix, but=batch.id):
        with suppress(NotFound):
            if cancel_job(job_id, key_prefix=batch.key_prefix, of_batch=True).state == JobState.DONE:
                return
    _settle(batch, number, {"cancelled": True})


def advance_batch(batch_id: str, token: str = "") -> None:
    """Start what can be started by now, and come back for the rest. Idempotent.

    ``token`` is that of the message: when a later one is on its way, that one comes back, so that messages do not add
    up where workers are slow. A batch whose key may not be used any more ends: what is not started fails with that.
    """
    with lane() as is_free:
        if is_free:
            _advance(batch_id, token)
        elif is_latest(batch_id, token):
            send_advance(batch_id, delay_s=ADVANCE_EVERY_S)


def _advance(batch_id: str, token: str) -> None:
    batch = find_batch(batch_id)
    if batch is None or not batch.open or not is_in_turn(batch):
        return
    try:
        grant_of(batch.key_prefix)
    except (KeyInvalid, KeyDisabled, KeyExpired) as error:
        _close(batch, error)
        return
    wait_s = _start_some(batch)
    if wait_s is None:
        _close(batch)
    elif is_latest(batch_id, token):
        send_advance(batch_id, delay_s=wait_s)


def _start_some(batch: Batch) -> float | None:
    """Start entries in their order, until there is no place for the next. Seconds until the next look; None when
    nothing is left."""
    looks: Counter[_Look] = Counter()
    for number in _waiting(batch):
        if (look := _start(batch, number)) is not None:
            looks[look] += 1
        if look is _Look.FULL or looks[_Look.ASKED] + looks[_Look.UNASKED] >= MAX_ASKED_AT_ONCE:
            break
    return min((LOOK_AGAIN_S[look] for look in looks), default=None)


def _start(batch: Batch, number: int) -> _Look | None:
    """Give the entry an asset or an error; None then, else what it waits for."""
    entry = batch.entries[number]
    if (not_before := entry.get("not_before")) is not None and not_before > utcnow():
        return _Look.LATER
    ask = MediaAsk(
        kind=MediaKind(batch.kind),
        video_id=entry["video_id"],
        wish=batch.wish,
        options=MediaOptions(**batch.options),
        priority=JobPriority.BATCH,
    )
    try:
        key, info = resolve(ask, waited_s=0)
        state = start_or_join(key, key_prefix=batch.key_prefix, waited_s=0, priority=JobPriority.BATCH, info=info)
    except Suspend as pending:
        return _keep_asking(batch, number, pending.topic)
    except Overloaded as error:
        return _keep_waiting(batch, number, error, _Look.FULL)
    except ApiError as error:
        return _try_later(batch, number, error)
    job_id = state.job.id if state.job else None
    cancelled_at = _settle(batch, number, {"asset_id": state.asset.id, "job_id": job_id})
    if cancelled_at is not None and job_id is not None:  # while this entry was being started
        _cancel_entry(batch, number, job_id)
    return None


def _keep_waiting(batch: Batch, number: int, error: Overloaded, look: _Look) -> _Look | None:
    """Wait for a free place: SLOT_PATIENCE from the making of the batch on."""
    if batch.created_at > utcnow() - SLOT_PATIENCE:
        return look
    _settle(batch, number, _error_fields(error))
    return None


def _keep_asking(batch: Batch, number: int, topic: str) -> _Look | None:
    """Wait for metadata: METADATA_PATIENCE from the moment on when the question has its place among the others."""
    asked_at = batch.entries[number].get("asked_at")
    if asked_at is None and not is_being_asked(topic):
        return _keep_waiting(batch, number, Overloaded(), _Look.UNASKED)
    if asked_at is None:
        _settle(batch, number, {"asked_at": utcnow()})
    elif asked_at < utcnow() - METADATA_PATIENCE:
        _settle(batch, number, _error_fields(UpstreamTimeout()))
        return None
    return _Look.ASKED


def _try_later(batch: Batch, number: int, error: ApiError) -> _Look | None:
    """An error that may pass is no end yet: the entry is tried again, MAX_TRIES times in all."""
    tries = batch.entries[number].get("tries", 0) + 1
    if not error.retryable or tries >= MAX_TRIES:
        _settle(batch, number, _error_fields(error))
        return None
    pause = max(TRY_AGAIN_AFTER, timedelta(seconds=error.retry_after_s or 0))
    _settle(batch, number, {"tries": tries, "not_before": utcnow() + pause, "asked_at": None})
    return _Look.LATER


def _close(batch: Batch, error: ApiError | None = None) -> None:
    """Nothing of this batch waits any more: what did fails with ``error``. The key's next one has its turn."""
    fields: dict[str, Any] = {"open": False}
    if error is not None:
        for number in _waiting(batch):
            fields |= {f"entries.{number}.{name}": value for name, value in _error_fields(error).items()}
    _collection().update_one({"_id": batch.id, "open": True}, {"$set": fields})
    send_next(batch.key_prefix)


def _settle(batch: Batch, number: int, fields: dict[str, Any]) -> datetime | None:
    """Note what became of an entry. Returns when the batch was cancelled, if it was."""
    change = {f"entries.{number}.{name}": value for name, value in fields.items()}
    document = _collection().find_one_and_update({"_id": batch.id}, {"$set": change}, {"cancelled_at": 1})
    return document.get("cancelled_at") if document else None


def _waiting(batch: Batch) -> list[int]:
    """The numbers of the entries that have neither an asset nor an error, and are still wanted."""
    if batch.cancelled_at is not None:
        return []
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


def _collection() -> Any:
    return Batch._get_collection()
