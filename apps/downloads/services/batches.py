"""Many files asked for at once: each entry is started in its turn, behind what people wait for."""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import current_app
from kombu.exceptions import OperationalError

from apps.core.clock import utcnow
from apps.core.errors import ApiError, InvalidUrl, NotFound, Overloaded, UpstreamTimeout
from apps.core.redis import redis_client
from apps.core.suspend import Suspend
from apps.downloads.documents import Batch, JobPriority, JobState
from apps.downloads.links import parse_video_id, watch_url
from apps.downloads.providers.listing import ListKind, ListQuestion
from apps.downloads.selectors import find_batch, jobs_by_id, open_batches, waits_in_another_batch
from apps.downloads.services.flights import is_being_asked
from apps.downloads.services.jobs import cancel_job
from apps.downloads.services.lists import get_listing
from apps.downloads.services.media import MediaAsk, resolve_key, start_or_join
from apps.downloads.variants import AS_IT_COMES, MediaOptions
from apps.telegram_cache.documents import MediaKind

log = structlog.get_logger(__name__)

ADVANCE_TASK = "apps.downloads.tasks.advance_batch"
MAX_LINKS = 50
MAX_PLAYLIST_VIDEOS = 200
PLAYLIST_PAGE = 50
ADVANCE_EVERY_S = 1.0
MAX_ASKED_AT_ONCE = 10  # entries whose metadata is not known yet: the others are looked at in a later round
RESEND_S = 15  # a batch that nobody has advanced for so long has lost its task
SLOT_EVERY_S = 5.0  # when all that is missing is a free place among the key's fetches, or in the queue
METADATA_PATIENCE = timedelta(minutes=30)  # from the first question about an entry
SLOT_PATIENCE = timedelta(days=1)  # from the making of the batch; then the entry fails with the reason it waits for
REVIVED_AT_ONCE = 500


def make_batch(
    links: list[str],
    *,
    kind: MediaKind,
    wish: str | None,
    key_prefix: str,
    options: MediaOptions = AS_IT_COMES,
    truncated: bool = False,
) -> Batch:
    """Keep the order and have it started. A link that is none gets its error at once; the others go on."""
    batch = Batch(
        key_prefix=key_prefix,
        kind=kind.value,
        wish=wish,
        options=options.as_document(),
        entries=[_new_entry(link) for link in links],
        truncated=truncated,
    )
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
    """Have the batch advanced. When the broker cannot take the task, ``revive_batches`` sends another."""
    token = secrets.token_hex(8)
    redis_client().set(_sent_name(batch_id), token, ex=RESEND_S)
    try:
        current_app.send_task(
            ADVANCE_TASK, [batch_id, token], countdown=delay_s or None, retry_policy={"max_retries": 1}
        )
    except OperationalError as error:
        log.warning("task not sent", batch_id=batch_id, reason=type(error).__name__)


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
    return find_batch(batch.id) or batch


def _cancel_entry(batch: Batch, number: int, job_id: str) -> None:
    if not waits_in_another_batch(job_id, key_prefix=batch.key_prefix, but=batch.id):
        with suppress(NotFound):
            if cancel_job(job_id, key_prefix=batch.key_prefix, of_batch=True).state == JobState.DONE:
                return
    _settle(batch, number, {"cancelled": True})


def revive(batch: Batch) -> None:
    """Send the task again of a batch that still has entries to start, but that nobody seems to advance."""
    if _waiting(batch) and not redis_client().exists(_sent_name(batch.id)):
        send_advance(batch.id)


def revive_batches() -> int:
    """The same for every batch that has entries to start: its worker was killed, or the broker was away. Returns how
    many tasks were sent. Idempotent, and cheap for batches that are being advanced."""
    waiting = open_batches(limit=REVIVED_AT_ONCE)
    sent = redis_client().mget([_sent_name(batch_id) for batch_id in waiting]) if waiting else []
    lost = [batch_id for batch_id, mark in zip(waiting, sent, strict=True) if mark is None]
    for batch_id in lost:
        send_advance(batch_id)
    return len(lost)


def advance_batch(batch_id: str, token: str = "") -> None:
    """Start what can be started by now, and come back for the rest. Idempotent.

    ``token`` is that of the message: when a later one is on its way, that one comes back, so that messages do not add
    up where workers are slow.
    """
    batch = find_batch(batch_id)
    if batch is None or batch.cancelled_at is not None:
        return
    waits: list[float] = []
    for number in _waiting(batch):
        if (wait_s := _start(batch, number)) is not None:
            waits.append(wait_s)
        if len(waits) >= MAX_ASKED_AT_ONCE:
            break
    if waits and token and redis_client().get(_sent_name(batch_id)) not in (None, token.encode()):
        return
    if waits:
        send_advance(batch_id, delay_s=min(waits))
    else:
        _collection().update_one({"_id": batch_id}, {"$set": {"open": False}})


def _start(batch: Batch, number: int) -> float | None:
    """Give the entry an asset or an error. If it can have neither yet: seconds until the next look."""
    ask = MediaAsk(
        kind=MediaKind(batch.kind),
        video_id=batch.entries[number]["video_id"],
        wish=batch.wish,
        options=MediaOptions(**batch.options),
        priority=JobPriority.BATCH,
    )
    try:
        key = resolve_key(ask, waited_s=0)
        state = start_or_join(key, key_prefix=batch.key_prefix, waited_s=0, priority=JobPriority.BATCH)
    except Suspend as pending:
        return _keep_asking(batch, number, pending.topic)
    except Overloaded as error:
        return _keep_waiting(batch, number, error)
    except ApiError as error:
        _settle(batch, number, _error_fields(error))
        return None
    job_id = state.job.id if state.job else None
    cancelled_at = _settle(batch, number, {"asset_id": state.asset.id, "job_id": job_id})
    if cancelled_at is not None and job_id is not None:  # while this entry was being started
        _cancel_entry(batch, number, job_id)
    return None


def _keep_waiting(batch: Batch, number: int, error: Overloaded) -> float | None:
    """Wait for a free place: SLOT_PATIENCE from the making of the batch on."""
    if batch.created_at > utcnow() - SLOT_PATIENCE:
        return SLOT_EVERY_S
    _settle(batch, number, _error_fields(error))
    return None


def _keep_asking(batch: Batch, number: int, topic: str) -> float | None:
    """Wait for metadata: METADATA_PATIENCE from the moment on when the question has its place among the others."""
    asked_at = batch.entries[number].get("asked_at")
    if asked_at is None and not is_being_asked(topic):
        return _keep_waiting(batch, number, Overloaded())
    if asked_at is None:
        _settle(batch, number, {"asked_at": utcnow()})
    elif asked_at < utcnow() - METADATA_PATIENCE:
        _settle(batch, number, _error_fields(UpstreamTimeout()))
        return None
    return ADVANCE_EVERY_S


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


def _sent_name(batch_id: str) -> str:
    return f"yt:batch:sent:{batch_id}"
