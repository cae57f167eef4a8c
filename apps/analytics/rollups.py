"""Sums of events per minute, hour and day. Computing one again gives the same document: nothing is ever added to one.

Moving events marks their minutes. A computed minute marks its hour, and that its day; hours and days wait a little, so
that they are not computed anew for every batch. Minutes come from the events, hours from minutes, days from hours.
Until a stretch of time is over only the few sums that charts are made of are computed, so that each of the very many
sums by video is written once (``Span.segments`` asks for the finer ones of that time).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from apps.analytics.documents import By, Grain, UsageEvent, UsageRollup, kept_for
from apps.analytics.histogram import BOUNDS_S
from apps.analytics.periods import ceil, floor, length
from apps.analytics.rollup_marks import Mark, mark, marks, postpone, rollup_lease, unmark
from apps.core.clock import utcnow
from apps.core.errors import Conflict

WAIT_S = {Grain.MINUTE: 0.0, Grain.HOUR: 60.0, Grain.DAY: 600.0}
BUDGET_S = 60.0  # of one run; well below the lease, and what is left is done by the next one
MAX_TIME_MS = 25_000
CHARTED = (By.ALL, By.KEY, By.FIRST_BYTE)  # also of a stretch of time that is not over
FINER = {Grain.HOUR: Grain.MINUTE, Grain.DAY: Grain.HOUR}
COARSER = {finer: grain for grain, finer in FINER.items()}
MARGIN = timedelta(days=1)  # finer sums that are about to end are not counted on
CHUNK = {Grain.MINUTE: timedelta(minutes=30), Grain.HOUR: timedelta(hours=3), Grain.DAY: timedelta(days=1)}


def roll_up(*, now: datetime | None = None, wait: bool = True) -> int:
    """Compute what is out of date; return how many stretches of time. 0 when somebody else does it right now.

    ``wait`` False: also the hours and days that would wait a little, and every sum of those that are not over.
    """
    now = now or utcnow()
    deadline = time.monotonic() + BUDGET_S
    done = 0
    with rollup_lease() as mine:
        if not mine:
            return 0
        for grain in Grain:
            for each in marks(grain, older_than_s=WAIT_S[grain] if wait else 0):
                if time.monotonic() > deadline:
                    return done
                _compute_marked(each, now, whole=not wait or each.start + length(grain) <= now)
                done += 1
    return done


def _compute_marked(each: Mark, now: datetime, *, whole: bool) -> None:
    """``whole`` False: only what charts need, and the mark stays for the rest."""
    end = each.start + length(each.grain)
    for by in By if whole else CHARTED:
        _compute(by, each.grain, each.start, end, now)
    if coarser := COARSER.get(each.grain):
        mark(coarser, [floor(each.start, coarser)])
    if whole:
        unmark([each])
    else:
        postpone(each)


def _compute(by: By, grain: Grain, start: datetime, end: datetime, now: datetime) -> None:
    """Compute sums from the finer ones where those are still there, else from the events."""
    finer = FINER.get(grain)
    if finer is None or now - start > kept_for(finer, by) - MARGIN:
        _compute_from_events(by, grain, start, end)
    else:
        _compute_from_sums(by, finer, grain, start, end)


def rebuild(start: datetime, end: datetime) -> dict[str, int]:
    """Compute every sum of the range anew, whole days of UTC; return how many it has then, by grain.

    Minutes and hours come from the events, days from those hours. Raises Conflict while the periodic computation
    runs. Days whose first events have already ended (USAGE_KEPT_DAYS) are left as they are.
    """
    start, end = max(floor(start, Grain.DAY), oldest_whole_day()), ceil(end, Grain.DAY)
    return {grain.value: _rebuild(grain, start, end) for grain in Grain}


def _rebuild(grain: Grain, start: datetime, end: datetime) -> int:
    at = _next_start(start, end, grain)
    while at is not None:
        until = min(at + CHUNK[grain], end)
        with rollup_lease() as mine:
            if not mine:
                raise Conflict("Sums are being computed right now. Try again in a minute.")
            _rebuild_chunk(grain, at, until)
        at = _next_start(until, end, grain)
    kinds = [by.value for by in By]
    return int(UsageRollup.objects(by__in=kinds, grain=grain.value, start__gte=start, start__lt=end).count())


def _rebuild_chunk(grain: Grain, start: datetime, end: datetime) -> None:
    now = utcnow()
    for by in _still_kept(grain, end, now):
        if grain is Grain.DAY:
            _compute(by, grain, start, end, now)
        else:
            _compute_from_events(by, grain, start, end)


def _still_kept(grain: Grain, end: datetime, now: datetime) -> Iterable[By]:
    """What sums that end then are not past their life already."""
    return [by for by in By if now - end < kept_for(grain, by)]


def _next_start(at: datetime, end: datetime, grain: Grain) -> datetime | None:
    """The start of the first sum in [at, end) that has events."""
    event = UsageEvent.objects(at__gte=at, at__lt=end).order_by("at").only("at").first()
    return None if event is None else floor(event.at, grain)


def oldest_whole_day() -> datetime:
    """The first UTC day of which every event is still there."""
    expiry = UsageEvent._get_collection().index_information().get("at_1", {}).get("expireAfterSeconds", 0)
    return ceil(utcnow() - timedelta(seconds=expiry), Grain.DAY)


def _compute_from_events(by: By, grain: Grain, start: datetime, end: datetime) -> None:
    """One question for each kind of value, so that none is long (the connection's time limit is 30 s)."""
    unit = {"$dateTrunc": {"date": "$at", "unit": grain.value}}
    refused = {"$and": [{"$gte": ["$status", 400]}, {"$lt": ["$status", 500]}]}
    groups: list[dict[str, Any]] = [
        {"$match": {"at": {"$gte": start, "$lt": end}}},
        {
            "$group": {
                "_id": {"value": _VALUES[by], "start": unit},
                "requests": {"$sum": 1},
                "errors": {"$sum": {"$cond": [{"$gte": ["$status", 500]}, 1, 0]}},
                "refused": {"$sum": {"$cond": [refused, 1, 0]}},
                "bytes_sent": {"$sum": "$bytes_sent"},
            }
        },
        {"$match": {"_id.value": {"$ne": None}}},
    ]
    _merge(UsageEvent, by, grain, groups)


def _compute_from_sums(by: By, finer: Grain, grain: Grain, start: datetime, end: datetime) -> None:
    where = {"by": by.value, "grain": finer.value, "start": {"$gte": start, "$lt": end}}
    unit = {"$dateTrunc": {"date": "$start", "unit": grain.value}}
    sums = {name: {"$sum": f"${name}"} for name in ("requests", "errors", "refused", "bytes_sent")}
    groups: list[dict[str, Any]] = [{"$match": where}, {"$group": {"_id": {"value": "$value", "start": unit}, **sums}}]
    _merge(UsageRollup, by, grain, groups)


def _merge(source: Any, by: By, grain: Grain, groups: list[dict[str, Any]]) -> None:
    """Run the pipeline and put each sum in the place of its older self."""
    kept_ms = int(kept_for(grain, by).total_seconds() * 1000)
    shape = {
        "_id": _document_id(by, grain),
        "grain": grain.value,
        "by": by.value,
        "value": "$_id.value",
        "start": "$_id.start",
        **{name: f"${name}" for name in ("requests", "errors", "refused", "bytes_sent")},
        "expires_at": {"$add": ["$_id.start", kept_ms]},
    }
    into = UsageRollup._get_collection_name()
    merge = {"$merge": {"into": into, "on": "_id", "whenMatched": "replace", "whenNotMatched": "insert"}}
    source._get_collection().aggregate(
        [*groups, {"$replaceWith": shape}, {"$match": {"expires_at": {"$gt": utcnow()}}}, merge],
        allowDiskUse=True,
        maxTimeMS=MAX_TIME_MS,
    )


def _document_id(by: By, grain: Grain) -> dict[str, Any]:
    seconds = {"$toString": {"$toLong": {"$divide": [{"$toLong": "$_id.start"}, 1000]}}}
    return {"$concat": [f"{grain.value}:{by.value}:", seconds, ":", "$_id.value"]}


_BUCKET = {"$toString": {"$size": {"$filter": {"input": list(BOUNDS_S), "cond": {"$lt": ["$$this", "$first_byte_s"]}}}}}
_ERROR = {"$ifNull": ["$error", {"$cond": [{"$gte": ["$status", 400]}, {"$toString": "$status"}, None]}]}
_VALUES: dict[By, Any] = {
    By.ALL: {"$literal": ""},
    By.KEY: "$key_prefix",
    By.ROUTE: "$route",
    By.TIER: "$tier",
    By.VIDEO: "$video_id",
    By.ERROR: _ERROR,
    By.FIRST_BYTE: {"$cond": [{"$isNumber": "$first_byte_s"}, _BUCKET, None]},
}
