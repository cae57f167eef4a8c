"""Answers from outside that are no media: lists, subtitles, pictures. Kept in MongoDB, asked for by one process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import structlog

from apps.core.clock import utcnow
from apps.core.errors import STILL_COMING_RETRY_S, ApiError, InternalError, NotFound, UpstreamTimeout, error_from_code
from apps.core.suspend import Suspend
from apps.downloads.documents import LookupRecord
from apps.downloads.errors import CONTENT_ERRORS
from apps.downloads.selectors import find_lookup
from apps.downloads.services.flights import Flight

log = structlog.get_logger(__name__)

LOOKUP_TASK = "apps.downloads.tasks.look_up"
LOOKUP_TIMEOUT_S = 25.0
WAIT_S = 25.0
SHAPE = "1"  # of the recorded answers: with another one, those of other versions are not read
ERROR_KEPT = timedelta(minutes=10)
UPSTREAM_ERROR_KEPT = timedelta(seconds=15)


class LookupKind(StrEnum):
    SEARCH = "search"
    PLAYLIST = "playlist"
    CHANNEL = "channel"
    SUBTITLES = "subtitles"
    THUMBNAIL = "thumbnail"


FRESH = {
    LookupKind.SEARCH: timedelta(hours=1),
    LookupKind.PLAYLIST: timedelta(minutes=30),
    LookupKind.CHANNEL: timedelta(minutes=30),
    LookupKind.SUBTITLES: timedelta(hours=6),
    LookupKind.THUMBNAIL: timedelta(days=1),
}
KEPT = {
    LookupKind.SEARCH: timedelta(days=1),
    LookupKind.PLAYLIST: timedelta(days=1),
    LookupKind.CHANNEL: timedelta(days=1),
    LookupKind.SUBTITLES: timedelta(days=2),
    LookupKind.THUMBNAIL: timedelta(days=2),
}
"""After FRESH an answer is still given, while a new one is fetched; after KEPT it is forgotten (a TTL index)."""
MAX_KEPT = {
    LookupKind.SEARCH: 10_000,
    LookupKind.PLAYLIST: 10_000,
    LookupKind.CHANNEL: 10_000,
    LookupKind.SUBTITLES: 5000,
    LookupKind.THUMBNAIL: 2000,
}
"""Beyond this many of a kind, errors included, those are forgotten that nobody has read for longest."""
DROPPED_AT_ONCE = 100
USE_NOTED_EVERY = timedelta(minutes=10)  # so that not every reading is a write


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """One question. ``subject``: words, a list's or a video's id. ``detail``: what else tells questions apart."""

    kind: LookupKind
    subject: str
    detail: str = ""

    @property
    def record_id(self) -> str:
        text = "\0".join((SHAPE, self.kind.value, self.detail, self.subject))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def flight(self) -> Flight:
        arguments = (self.kind.value, self.subject, self.detail)
        return Flight(kind="lookup", name=self.record_id, task=LOOKUP_TASK, arguments=arguments)


def wait_for_lookup(lookup: Lookup, *, waited_s: float) -> dict[str, Any]:
    """The recorded answer. Raises the recorded error, Suspend while nobody knows, UpstreamTimeout after WAIT_S.

    An answer that has aged is given at once, and renewed in the background as soon as there is room for that.
    """
    record = find_lookup(lookup.record_id)
    now = utcnow()
    if record is None or record.expires_at <= now:
        if waited_s >= WAIT_S:
            raise UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S)
        lookup.flight.request()
        raise Suspend(lookup.flight.topic)
    _note_use(record)
    if record.error_code:
        error = error_from_code(record.error_code, record.error_message or "")
        if error.retryable:
            error.retry_after_s = max(1.0, (record.expires_at - now).total_seconds())
        raise error
    if record.fresh_until <= now:
        lookup.flight.renew()
    return dict(record.answer)


def answer_lookup(lookup: Lookup, ask: Callable[[Lookup, float], dict[str, Any]]) -> None:
    """Ask (``ask(lookup, timeout_s)``) and record the outcome, unless it is known or another process is asking."""
    if _is_fresh(lookup):
        return
    with lookup.flight.lead() as leads:
        if leads and not _is_fresh(lookup):
            _record(lookup, ask)


def _record(lookup: Lookup, ask: Callable[[Lookup, float], dict[str, Any]]) -> None:
    now = utcnow()
    try:
        answer = ask(lookup, LOOKUP_TIMEOUT_S)
    except ApiError as error:
        log.info("lookup failed", kind=lookup.kind.value, error=error.code)
        _record_error(lookup, error)
    except Exception:  # a fault of ours: whoever waits gets an answer, the log gets the cause
        log.exception("lookup failed", kind=lookup.kind.value)
        _record_error(lookup, InternalError())
    else:
        times = {"fresh_until": now + FRESH[lookup.kind], "expires_at": now + KEPT[lookup.kind]}
        _save(lookup, {"answer": answer, "error_code": None, "error_message": None, **times})


def _record_error(lookup: Lookup, error: ApiError) -> None:
    """What is certain replaces an earlier answer. A failing source does not: the old answer stays a while longer."""
    is_certain = isinstance(error, (*CONTENT_ERRORS, NotFound))
    until = utcnow() + (ERROR_KEPT if is_certain else UPSTREAM_ERROR_KEPT)
    if not is_certain:
        good = {"_id": lookup.record_id, "error_code": None, "expires_at": {"$gt": until}}
        if _collection().update_one(good, {"$set": {"fresh_until": until}}).matched_count:
            return
    failed = {"answer": {}, "error_code": error.code, "error_message": error.message}
    _save(lookup, {**failed, "fresh_until": until, "expires_at": until})


def _note_use(record: LookupRecord) -> None:
    now = utcnow()
    if record.used_at is None or record.used_at < now - USE_NOTED_EVERY:
        _collection().update_one({"_id": record.id}, {"$max": {"used_at": now}})


def _forget_unused(kind: LookupKind) -> None:
    if _collection().count_documents({"kind": kind.value}) <= MAX_KEPT[kind]:
        return
    unused = _collection().find({"kind": kind.value}, {"_id": 1}).sort("used_at", 1).limit(DROPPED_AT_ONCE)
    _collection().delete_many({"_id": {"$in": [record["_id"] for record in unused]}})


def _is_fresh(lookup: Lookup) -> bool:
    record = find_lookup(lookup.record_id)
    return record is not None and record.fresh_until > utcnow()


def _save(lookup: Lookup, fields: dict[str, Any]) -> None:
    now = utcnow()
    about = {"kind": lookup.kind.value, "created_at": now, "used_at": now}
    done = _collection().update_one({"_id": lookup.record_id}, {"$set": fields, "$setOnInsert": about}, upsert=True)
    if done.upserted_id is not None:
        _forget_unused(lookup.kind)


def _collection() -> Any:
    return LookupRecord._get_collection()
