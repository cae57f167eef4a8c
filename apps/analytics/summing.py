"""Sums in memory: events or finer sums go in, documents of ``usage_rollups`` come out. Each event is read once.

While the numbers are added up here, MongoDB already reads the next events and writes the sums before, in a thread each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from pymongo import ReplaceOne
from pymongo.cursor import Cursor

from apps.analytics.documents import By, Grain, UsageEvent, UsageRollup, kept_for
from apps.analytics.histogram import bucket_of
from apps.core.clock import utcnow

SUMS = ("requests", "errors", "refused", "bytes_sent")
MAX_TIME_MS = 25_000
READ = 5_000  # events a batch
WRITTEN = 20_000  # sums a batch; about 500 bytes each
INSERTED = 5_000  # of those in one command
_FIELDS = ("at", "key_prefix", "route", "tier", "video_id", "status", "error", "first_byte_s", "bytes_sent")

Sums = dict[By, dict[str, list[int]]]  # by value; the numbers are in the order of SUMS


def sums_of_events(start: datetime, end: datetime, grain: Grain) -> Iterator[tuple[datetime, Sums]]:
    """The sums of each minute, hour or day in [start, end) that has events, oldest first.

    Memory: about 300 bytes for each different value of one such stretch.
    """
    length = grain.seconds

    def stretch(event: dict[str, Any]) -> int:
        at: datetime = event["at"]
        days = at.toordinal() * 86_400
        return (days + at.hour * 3600 + at.minute * 60) // length

    epoch = datetime(1970, 1, 1, tzinfo=UTC).toordinal() * 86_400
    for number, group in groupby(_events(start, end), stretch):
        yield datetime.fromtimestamp(number * length - epoch, UTC), _added_up(group)


def _events(start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
    """In the order of time. The next ones are on their way while these are used."""
    wanted = dict.fromkeys(_FIELDS, True) | {"_id": False}
    found = UsageEvent._get_collection().find({"at": {"$gte": start, "$lt": end}}, wanted, batch_size=READ)
    with found.sort("at", 1) as events, ThreadPoolExecutor(1, "read-events") as ahead:  # a thread is done with it first
        coming = ahead.submit(_some, events)
        while some := coming.result():
            coming = ahead.submit(_some, events)
            yield from some


def _some(events: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(islice(events, READ))


def _added_up(events: Iterable[dict[str, Any]]) -> Sums:
    """What many events have in common is counted for all of it at once, and taken apart in the end."""
    common: dict[tuple[str, str | None, int, str | None], list[int]] = {}
    keys: dict[Any, list[int]] = {}
    videos: dict[Any, list[int]] = {}
    times: dict[Any, list[int]] = {}
    for event in events:
        get = event.get
        status, sent, first_byte_s = event["status"], event["bytes_sent"], get("first_byte_s")
        shape = (event["route"], get("tier"), status, get("error"))
        if (numbers := common.get(shape)) is None:
            common[shape] = [1, 0, 0, sent]
        else:
            numbers[0] += 1
            numbers[3] += sent
        for table, value in (
            (keys, get("key_prefix")),
            (videos, get("video_id")),
            (times, None if first_byte_s is None else bucket_of(first_byte_s)),
        ):
            if value is None:
                continue
            if (numbers := table.get(value)) is None:
                numbers = table[value] = [0, 0, 0, 0]
            numbers[0] += 1
            numbers[3] += sent
            if status >= 400:
                numbers[1 if status >= 500 else 2] += 1
    apart = {By.KEY: keys, By.VIDEO: videos, By.FIRST_BYTE: {str(bucket): times[bucket] for bucket in times}}
    return {**apart, **_taken_apart(common)}


def _taken_apart(common: dict[tuple[str, str | None, int, str | None], list[int]]) -> Sums:
    sums: Sums = {}
    for (route, tier, status, error), (requests, _, _, sent) in common.items():
        if error is None and status >= 400:
            error = str(status)
        failed, refused = (requests if status >= 500 else 0), (requests if 400 <= status < 500 else 0)
        for by, value in ((By.ALL, ""), (By.ROUTE, route), (By.TIER, tier), (By.ERROR, error)):
            if value is not None:
                add(sums, {by: {value: [requests, failed, refused, sent]}})
    return sums


def sums_of_finer(finer: Grain, start: datetime, end: datetime, kinds: Iterable[By]) -> Sums:
    """What the finer sums of [start, end) come to. One covered question."""
    where = {"by": {"$in": [by.value for by in kinds]}, "grain": finer.value, "start": {"$gte": start, "$lt": end}}
    group = {"_id": {"by": "$by", "value": "$value"}, **{name: {"$sum": f"${name}"} for name in SUMS}}
    rows = UsageRollup._get_collection().aggregate(
        [{"$match": where}, {"$group": group}], allowDiskUse=True, maxTimeMS=MAX_TIME_MS
    )
    sums: Sums = {}
    for row in rows:
        sums.setdefault(By(row["_id"]["by"]), {})[row["_id"]["value"]] = [int(row[name]) for name in SUMS]
    return sums


def add(total: Sums, more: Sums) -> None:
    """Add to ``total`` in place; ``more`` stays as it is."""
    for by, values in more.items():
        table = total.setdefault(by, {})
        for value, numbers in values.items():
            found = table.get(value)
            if found is None:
                table[value] = numbers.copy()
            else:
                for place, number in enumerate(numbers):
                    found[place] += number


class SumWriter:
    """Writes sums in batches: new ones are inserted, different ones replaced, those that are right left alone.

    For one at a time (``rollup_lease``). Use it as a context manager, or the last batch is not written. Sums that were
    given must not change any more. What MongoDB raises comes with the next batch, or when the block ends.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[Grain, By], dict[datetime, dict[str, list[int]]]] = defaultdict(dict)
        self._size = 0
        self._now = utcnow()
        self._thread = ThreadPoolExecutor(1, "write-sums")
        self._written: Future[None] | None = None

    def __enter__(self) -> SumWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._thread:
            if kind is None:
                self._flush()
                self._wait()

    def write(self, grain: Grain, start: datetime, sums: Sums) -> None:
        """Sums whose life is over already are not written."""
        for by, values in sums.items():
            if values and start + kept_for(grain, by) > self._now:
                self._waiting[grain, by][start] = values
                self._size += len(values)
        if self._size >= WRITTEN:
            self._flush()

    def _flush(self) -> None:
        """Have this batch written. No more than two are in memory: this one waits for the one before."""
        self._wait()
        self._written = self._thread.submit(_write, self._waiting)
        self._waiting, self._size = defaultdict(dict), 0

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()


def _write(wanted: dict[tuple[Grain, By], dict[datetime, dict[str, list[int]]]]) -> None:
    collection = UsageRollup._get_collection()
    for (grain, by), stretches in wanted.items():
        missing = {start: values.copy() for start, values in stretches.items()}
        changed = []
        for start, rows in groupby(_stored(grain, by, min(stretches), max(stretches)), itemgetter("start")):
            values = missing.get(start, {})
            for row in rows:
                numbers = values.pop(row["value"], None)
                if numbers is not None and numbers != [row[name] for name in SUMS]:
                    document = _document(grain, by, start, row["value"], numbers)
                    changed.append(ReplaceOne({"_id": document["_id"]}, document, upsert=True))
        if changed:
            collection.bulk_write(changed, ordered=False)
        # by value: an index begins with it, and MongoDB then fetches each of its pages once, not for every sum
        new = sorted((value, start, numbers) for start, values in missing.items() for value, numbers in values.items())
        for first in range(0, len(new), INSERTED):
            some = new[first : first + INSERTED]
            collection.insert_many(
                [_document(grain, by, start, value, numbers) for value, start, numbers in some], ordered=False
            )


def _stored(grain: Grain, by: By, first: datetime, last: datetime) -> Cursor[dict[str, Any]]:
    """The sums that are there, by time, from the index alone."""
    where = {"by": by.value, "grain": grain.value, "start": {"$gte": first, "$lte": last}}
    shown = {"_id": False, "start": True, "value": True, **dict.fromkeys(SUMS, True)}
    found: Cursor[dict[str, Any]] = UsageRollup._get_collection().find(where, shown, batch_size=INSERTED)
    return found.sort("start", 1)


def _document(grain: Grain, by: By, start: datetime, value: str, numbers: list[int]) -> dict[str, Any]:
    return {
        "_id": f"{grain.value}:{by.value}:{int(start.timestamp())}:{value}",
        "grain": grain.value,
        "by": by.value,
        "value": value,
        "start": start,
        **dict(zip(SUMS, numbers, strict=True)),
        "expires_at": start + kept_for(grain, by),
    }
