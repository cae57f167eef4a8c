"""Sums of events per minute, hour and day. Computing one again gives the same document: nothing is ever added to one.

Moving events marks their minutes. A computed minute marks its hour, and that its day; hours and days wait a little, so
that they are not computed anew for every batch. Minutes come from the events, hours from minutes, days from hours.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from apps.analytics.documents import DAY_S, By, Grain, UsageEvent, UsageRollup, kept_for
from apps.analytics.histogram import BOUNDS_S
from apps.analytics.periods import ceil, floor, length
from apps.analytics.rollup_marks import Mark, mark, marks, rollup_lease, unmark
from apps.core.clock import utcnow
from apps.core.errors import Conflict

WAIT_S = {Grain.MINUTE: 0.0, Grain.HOUR: 60.0, Grain.DAY: 600.0}
BUDGET_S = 60.0  # of one run; well below the lease, and what is left is done by the next one
MAX_TIME_MS = 25_000
FINER = {Grain.HOUR: Grain.MINUTE, Grain.DAY: Grain.HOUR}
COARSER = {finer: grain for grain, finer in FINER.items()}
FINER_IS_THERE_S = {Grain.HOUR: DAY_S, Grain.DAY: 7 * DAY_S}  # younger ones still have every finer sum
CHUNK = {Grain.MINUTE: timedelta(minutes=30), Grain.HOUR: timedelta(hours=3), Grain.DAY: timedelta(days=1)}


def roll_up(*, now: datetime | None = None, wait: bool = True) -> int:
    """Compute what is out of date; return how many stretches of time. 0 when somebody else does it right now.

    ``wait`` False: also the hours and days that would wait a little.
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
                _compute_marked(each, now)
                done += 1
    return done


def _compute_marked(each: Mark, now: datetime) -> None:
    end = each.start + length(each.grain)
    finer = FINER.get(each.grain)
    if finer is None or (now - each.start).total_seconds() > FINER_IS_THERE_S[each.grain]:
        compute_from_events(each.grain, each.start, end)
    else:
        _compute_from(finer, each.grain, each.start, end)
    if coarser := COARSER.get(each.grain):
        mark(coarser, [floor(each.start, coarser)])
    unmark([each])


def rebuild(start: datetime, end: datetime) -> dict[str, int]:
    """Compute every sum of the range anew from the events, whole days of UTC; return how many documents, by grain.

    Raises Conflict while the periodic computation runs. Days whose first events have already ended
    (USAGE_KEPT_DAYS) are left as they are.
    """
    oldest = oldest_whole_day()
    start, end = max(floor(start, Grain.DAY), oldest), ceil(end, Grain.DAY)
    made: dict[str, int] = {}
    for grain in Grain:
        made[grain.value] = 0
        at = _next_start(start, end, grain)
        while at is not None:
            until = min(at + CHUNK[grain], end)
            with rollup_lease() as mine:
                if not mine:
                    raise Conflict("Sums are being computed right now. Try again in a minute.")
                if utcnow() - until < kept_for(grain, By.ALL):
                    made[grain.value] += compute_from_events(grain, at, until)
            at = _next_start(until, end, grain)
    return made


def _next_start(at: datetime, end: datetime, grain: Grain) -> datetime | None:
    """The start of the first sum in [at, end) that has events."""
    event = UsageEvent.objects(at__gte=at, at__lt=end).order_by("at").only("at").first()
    return None if event is None else floor(event.at, grain)


def oldest_whole_day() -> datetime:
    """The first UTC day of which every event is still there."""
    expiry = UsageEvent._get_collection().index_information().get("at_1", {}).get("expireAfterSeconds", 0)
    return ceil(utcnow() - timedelta(seconds=expiry), Grain.DAY)


def compute_from_events(grain: Grain, start: datetime, end: datetime) -> int:
    """Compute the sums of ``grain`` between two starts from the events; return how many documents."""
    return sum(_compute_by(by, value, grain, start, end) for by, value in _VALUES.items())


def _compute_by(by: By, value: Any, grain: Grain, start: datetime, end: datetime) -> int:
    """One question for each kind of value, so that none is long (the connection's time limit is 30 s)."""
    refused = {"$and": [{"$gte": ["$status", 400]}, {"$lt": ["$status", 500]}]}
    groups: list[dict[str, Any]] = [
        {"$match": {"at": {"$gte": start, "$lt": end}}},
        {
            "$group": {
                "_id": {"value": value, "start": {"$dateTrunc": {"date": "$at", "unit": grain.value}}},
                "requests": {"$sum": 1},
                "errors": {"$sum": {"$cond": [{"$gte": ["$status", 500]}, 1, 0]}},
                "refused": {"$sum": {"$cond": [refused, 1, 0]}},
                "bytes_sent": {"$sum": "$bytes_sent"},
            }
        },
        {"$match": {"_id.value": {"$ne": None}}},
    ]
    return _merge(UsageEvent, by, grain, groups, start, end)


def _compute_from(finer: Grain, grain: Grain, start: datetime, end: datetime) -> None:
    for by in By:
        where = {"by": by.value, "grain": finer.value, "start": {"$gte": start, "$lt": end}}
        unit = {"$dateTrunc": {"date": "$start", "unit": grain.value}}
        sums = {name: {"$sum": f"${name}"} for name in ("requests", "errors", "refused", "bytes_sent")}
        groups: list[dict[str, Any]] = [
            {"$match": where},
            {"$group": {"_id": {"value": "$value", "start": unit}, **sums}},
        ]
        _merge(UsageRollup, by, grain, groups, start, end)


def _merge(source: Any, by: By, grain: Grain, groups: list[dict[str, Any]], start: datetime, end: datetime) -> int:
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
    made = UsageRollup.objects(by=by.value, grain=grain.value, start__gte=start, start__lt=end)
    return int(made.count())


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
