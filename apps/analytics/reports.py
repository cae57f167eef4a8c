"""The figures of a range of time, from sums alone: no question here reads an event, or a document beside its index."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

from apps.analytics.concurrency import Peak, peaks
from apps.analytics.documents import By, UsageRollup
from apps.analytics.histogram import BUCKETS, quantile
from apps.analytics.spans import DAY_STEP_S, Segment, Span
from apps.keys.documents import ApiKey
from apps.keys.people import PERSON_CHARACTERS, is_person, people_names
from apps.telegram_cache.documents import Asset

MAX_TIME_MS = 10_000
AT_ONCE = 4  # questions of all reports of this process; MongoDB has no use for more of them at a time
TOP = 10
MAX_TOP = 1000
MANY = frozenset({By.VIDEO, By.KEY})
AMONG = 500  # times the number of minutes, hours or days: so many of their sums are looked at, those of most requests
MAX_MERGED = 100  # MongoDB reads up to 200 starts (internalQueryMaxScansToExplode) in the order of requests
SUMS = ("requests", "errors", "refused", "bytes_sent")


@dataclass(frozen=True, kw_only=True)
class Sums:
    """``errors``: status 5xx. ``refused``: status 4xx, clients that left included."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    bytes_sent: int = 0

    @property
    def answered(self) -> int:
        return self.requests - self.errors - self.refused

    @property
    def error_rate(self) -> float:
        """0 to 1."""
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True, kw_only=True)
class TopRow:
    """One value and its sums. ``label``: what people call it (a title, a key's name); "" when nobody knows."""

    value: str
    label: str
    sums: Sums

    @property
    def is_person(self) -> bool:
        """Somebody logged in to the admin, who stands where a key stands but has none."""
        return is_person(self.value)


@dataclass(frozen=True, kw_only=True)
class Series:
    """Steps of a chart, oldest first; every list has the same length. ``starts`` are UTC."""

    step_s: int
    starts: list[datetime]
    sums: list[Sums]
    first_byte_p50_s: list[float | None]
    first_byte_p95_s: list[float | None]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the analytics page and the API show."""

    span: Span
    totals: Sums
    first_byte_p50_s: float | None
    first_byte_p95_s: float | None
    hit_ratio: float | None  # 0 to 1: hot and telegram of all tiers; None: no media was asked for
    peak_users: int
    series: Series
    videos: list[TopRow]
    keys: list[TopRow]
    routes: list[TopRow]
    tiers: list[TopRow]
    errors: list[TopRow]


@dataclass(frozen=True, kw_only=True)
class KeyUsage:
    """What one key did in a range: the whole, and the steps of a chart (without times to first byte)."""

    span: Span
    totals: Sums
    starts: list[datetime]
    sums: list[Sums]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="usage-report")


def usage_report(span: Span, *, top: int = TOP) -> Report:
    """Everything about a range; ``top`` rows (MAX_TOP at most) in each list. Raises what MongoDB raises.

    Its questions are asked at the same time, those that take longest first.
    """
    top = min(top, MAX_TOP)
    videos, times, keys, steps, errors, routes, tiers, users = asked = (
        _threads().submit(top_values, By.VIDEO, span, limit=top),
        _threads().submit(_by_step, span, {"by": By.FIRST_BYTE.value}),
        _threads().submit(top_values, By.KEY, span, limit=top),
        _threads().submit(_by_step, span, {"by": By.ALL.value, "value": ""}),
        _threads().submit(top_values, By.ERROR, span, limit=top),
        _threads().submit(top_values, By.ROUTE, span, limit=top),
        _threads().submit(top_values, By.TIER, span, limit=top),
        _threads().submit(user_peaks, span),
    )
    try:
        series, first_bytes = _series(span, steps.result(), times.result())
        by_tier = {row.value: row.sums.requests for row in tiers.result()}
        media = sum(by_tier.values())
        return Report(
            span=span,
            totals=_total(series.sums),
            first_byte_p50_s=quantile(first_bytes, 0.5),
            first_byte_p95_s=quantile(first_bytes, 0.95),
            hit_ratio=(by_tier.get("hot", 0) + by_tier.get("telegram", 0)) / media if media else None,
            peak_users=max((peak.users for peak in users.result()), default=0),
            series=series,
            videos=videos.result(),
            keys=keys.result(),
            routes=routes.result(),
            tiers=tiers.result(),
            errors=errors.result(),
        )
    finally:
        for question in asked:
            question.cancel()  # when one failed, what nobody has begun


def key_usage(key_prefix: str, span: Span) -> KeyUsage:
    """What one key did. One covered range of an index. A key that did nothing has zeros."""
    found = _by_step(span, {"by": By.KEY.value, "value": key_prefix})
    starts = span.steps()
    sums = [found.get((start, key_prefix), Sums()) for start in starts]
    return KeyUsage(span=span, totals=_total(sums), starts=starts, sums=sums)


def top_values(by: By, span: Span, *, limit: int = TOP) -> list[TopRow]:
    """The values with the most requests in a range, most first.

    Of videos and keys, which may be very many, two questions: who is among the most used of some minute, hour or day of
    the range, and what those did in all. One that is never among those can be missed.
    """
    collection, segments = UsageRollup._get_collection(), span.segments(by)
    if not segments:  # it has not begun
        return []
    found: list[str] | None = None
    if by in MANY:
        found = [row["_id"] for row in collection.aggregate(candidates_pipeline(by, segments, limit), **_OPTIONS)]
    rows = list(collection.aggregate(sums_pipeline(by, segments, found, limit), **_OPTIONS))
    labels = _labels(by, [row["_id"] for row in rows])
    return [TopRow(value=row["_id"], label=labels.get(row["_id"], ""), sums=_sums(row)) for row in rows]


def user_peaks(span: Span) -> list[Peak]:
    """The most users at once in each minute of a range (of its last 31 days at most)."""
    return peaks(max(span.start, span.end - timedelta(days=31)), span.end)


def candidates_pipeline(by: By, segments: list[Segment], limit: int) -> list[dict[str, Any]]:
    """Who may be among the ``limit`` most used: the first ones of the days, of the hours and of the minutes.

    With its starts listed, MongoDB reads such a stretch in the order of requests, straight from the index.
    """
    taken = max(AMONG, 2 * limit)
    parts: list[list[dict[str, Any]]] = []
    for segment in segments:
        whole = segment.starts()
        for at in range(0, len(whole), MAX_MERGED):
            starts = whole[at : at + MAX_MERGED]
            where = {"by": by.value, "grain": segment.grain.value, "start": {"$in": starts}}
            first: list[dict[str, Any]] = [{"$match": where}, {"$sort": {"requests": -1}}]
            parts.append([*first, {"$limit": taken * len(starts)}, {"$project": {"_id": "$value", "requests": 1}}])
    added = {"$group": {"_id": "$_id", "requests": {"$sum": "$requests"}}}
    return [*_union(parts), added, {"$sort": {"requests": -1, "_id": 1}}, {"$limit": 5 * limit + 50}]


def sums_pipeline(by: By, segments: list[Segment], values: list[str] | None, limit: int) -> list[dict[str, Any]]:
    """What each of some values (None: each there is) did in the range; the ``limit`` most used of them."""
    # prefixes of keys are shorter; one of somebody in the admin loses its sessions, so that a person is one row
    value = {"$substrCP": ["$value", 0, PERSON_CHARACTERS]} if by is By.KEY else "$value"
    parts = []
    for segment in segments:
        within = _within(by, segment)
        if values is not None:
            within["$match"]["value"] = {"$in": values}
        parts.append([within, {"$group": {"_id": value, **_ADDED}}])
    return [
        *_union(parts), {"$group": {"_id": "$_id", **_ADDED}}, {"$sort": {"requests": -1, "_id": 1}}, {"$limit": limit}
    ]  # fmt: skip


def _within(by: By, segment: Segment) -> dict[str, Any]:
    start = {"$gte": segment.start, "$lt": segment.end}
    return {"$match": {"by": by.value, "grain": segment.grain.value, "start": start}}


def _union(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    first, *others = parts
    name = UsageRollup._get_collection_name()
    return [*first, *({"$unionWith": {"coll": name, "pipeline": part}} for part in others)]


def step_pipeline(span: Span, where: dict[str, Any]) -> list[dict[str, Any]]:
    """The question of a chart: sums by step and value."""
    match = {**where, "grain": span.grain.value, "start": {"$gte": span.start, "$lt": span.end}}
    step = _day_of(span) if span.step_s == DAY_STEP_S else _clock_step(span.step_s)
    return [{"$match": match}, {"$group": {"_id": {"start": step, "value": "$value"}, **_ADDED}}]


def _clock_step(step_s: int) -> dict[str, Any]:
    return {"$dateTrunc": {"date": "$start", "unit": "minute", "binSize": step_s // 60}}


def _day_of(span: Span) -> dict[str, Any]:
    """The day that a sum begins in, of those that ``span.steps`` gives. MongoDB's own time zones are those of its
    release: it does not know newer ones, and moves days of zones whose rules have changed since.
    """
    runs: list[list[datetime]] = []
    for day in span.steps():
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    *changed, last = runs
    if not changed:
        return _day_of_run(last)
    branches = [{"case": {"$lt": ["$start", after[0]]}, "then": _day_of_run(run)} for run, after in pairwise(runs)]
    return {"$switch": {"branches": branches, "default": _day_of_run(last)}}


def _day_of_run(run: list[datetime]) -> dict[str, Any]:
    """The day among some that begin 24 hours apart; the last one may be longer."""
    into_day = {"$mod": [{"$subtract": ["$start", run[0]]}, DAY_STEP_S * 1000]}
    return {"$min": [{"$subtract": ["$start", into_day]}, run[-1]]}


def _series(
    span: Span, found: dict[tuple[datetime, str], Sums], first_bytes: dict[tuple[datetime, str], Sums]
) -> tuple[Series, list[int]]:
    """The chart, and the histogram of the whole range."""
    starts = span.steps()
    times: dict[datetime, list[int]] = {start: [0] * BUCKETS for start in starts}
    for (start, bucket), sums in first_bytes.items():
        times.setdefault(start, [0] * BUCKETS)[int(bucket)] += sums.requests
    series = Series(
        step_s=span.step_s,
        starts=starts,
        sums=[found.get((start, ""), Sums()) for start in starts],
        first_byte_p50_s=[quantile(times[start], 0.5) for start in starts],
        first_byte_p95_s=[quantile(times[start], 0.95) for start in starts],
    )
    return series, [sum(counts) for counts in zip(*times.values(), strict=True)]


def _by_step(span: Span, where: dict[str, Any]) -> dict[tuple[datetime, str], Sums]:
    rows = UsageRollup._get_collection().aggregate(step_pipeline(span, where), **_OPTIONS)
    return {(row["_id"]["start"].replace(tzinfo=UTC), row["_id"]["value"]): _sums(row) for row in rows}


def _labels(by: By, values: list[str]) -> dict[str, str]:
    if by is By.VIDEO:
        found = Asset.objects(video_id__in=values, title__ne="").only("video_id", "title").limit(10 * MAX_TOP)
        return {asset.video_id: asset.title for asset in found}
    if by is By.KEY:
        names = {key.prefix: key.name for key in ApiKey.objects(prefix__in=values).only("prefix", "name")}
        return people_names(values) | names
    return {}


def _sums(row: dict[str, Any]) -> Sums:
    return Sums(**{name: int(row[name]) for name in SUMS})


def _total(sums: Iterable[Sums]) -> Sums:
    rows = list(sums)
    return Sums(**{name: sum(getattr(row, name) for row in rows) for name in SUMS})


_ADDED = {name: {"$sum": f"${name}"} for name in SUMS}
_OPTIONS: dict[str, Any] = {"maxTimeMS": MAX_TIME_MS, "allowDiskUse": True}
