"""How fast the analytics page's figures come from sums, over generated events of the last 30 days.

``python -m bench.rollups [--events 1000000] [--videos 50000] [--rounds 7] [--keep FOLDER] [--json]``. Events are made
up, summed by the same code as ``manage.py rollups rebuild``, and asked by the same code as the page. Beside it: the top
videos of 30 days counted from the events themselves, as a page without sums would do; and how long it takes to sum one
minute of 1,000 requests a second. With ``--keep`` the database stays in that folder: what is done already is not done
again, so that a run of many events can be stopped, and the pages measured again when the machine is quiet.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pymongo.errors import ExecutionTimeout

from bench.instance import bench_instance
from bench.report import Figure, Report
from bench.usage_events import CHUNK, make_events

DAYS = timedelta(days=30)
AHEAD = timedelta(hours=3)  # events are made of the hours to come as well: the last hour is full however long it takes
MINUTE_OF = 60_000
EVENTS_LIMIT_MS = 20_000
MAX_EVENTS = 20_000_000
ZONE = ZoneInfo("Europe/Berlin")
UNUSED = ("key_prefix_1_at_-1", "video_id_1_at_-1")  # indexes of events that neither summing nor the page asks


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rollups", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="how many events (default: 1,000,000)")
    parser.add_argument("--videos", type=int, default=50_000, help="of how many videos (default: 50,000)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each page is measured (default: 7)")
    parser.add_argument("--keep", type=Path, help="a folder for the database, which stays")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (CHUNK <= options.events <= MAX_EVENTS and options.videos > 0 and 1 <= options.rounds <= 100):
        parser.error(f"events from {CHUNK} to {MAX_EVENTS}, 1 to 100 rounds")
    report = Report("rollups")
    with bench_instance(bots=0, keep=options.keep):
        _measure(report, events=options.events, videos=options.videos, rounds=options.rounds)
    report.show(as_json=options.json)


def _measure(report: Report, *, events: int, videos: int, rounds: int) -> None:
    from apps.analytics.documents import RollupLease, UsageEvent, UsageRollup

    done = Progress(events=events, videos=videos)
    RollupLease.objects.delete()  # of a run that was stopped
    collection, step = UsageEvent._get_collection(), (DAYS + AHEAD) / events
    have = min(events, collection.estimated_document_count() // CHUNK * CHUNK)
    for name in set(UNUSED) & set(collection.index_information()):
        collection.drop_index(name)
    if have < events:
        at = done.start + have * step
        collection.delete_many({"at": {"$gte": at}})
        made_s = _timed(lambda: make_events(have, events, videos=videos, at=at, step=step))
        report.note(f"{events - have:,} events made in {made_s:.0f} s")
    _sum_days(report, done, events)
    count = UsageRollup._get_collection().estimated_document_count()
    report.note(f"{events:,} events of {videos:,} videos in {DAYS.days} days, {count:,} sums")
    _ask_pages(report, rounds)
    _sum_one_minute(report, videos)


class Progress:
    """What has been done in this database, kept in it."""

    def __init__(self, *, events: int, videos: int) -> None:
        from mongoengine import get_db

        from apps.core.clock import utcnow

        self._collection = get_db()["bench_rollups"]
        first = {"start": utcnow() - DAYS, "events": events, "videos": videos, "days": []}
        self._collection.update_one({"_id": "run"}, {"$setOnInsert": first}, upsert=True)
        kept = self._collection.find_one({"_id": "run"}) or {}
        if (kept["events"], kept["videos"]) != (events, videos):
            raise SystemExit(f"that folder is of {kept['events']} events of {kept['videos']} videos")
        self.start: datetime = kept["start"]
        self.days: list[dict[str, Any]] = kept["days"]

    def add(self, day: dict[str, Any]) -> None:
        self.days.append(day)
        self._collection.update_one({"_id": "run"}, {"$push": {"days": day}})


def _sum_days(report: Report, done: Progress, events: int) -> None:
    """Each day as ``manage.py rollups rebuild`` does it, the oldest first; the clock and processor time of each."""
    from apps.analytics.documents import Grain
    from apps.analytics.periods import floor
    from apps.analytics.rollups import rebuild

    first = floor(done.start, Grain.DAY)
    for number in range(len(done.days), (done.start + DAYS + AHEAD - first) // timedelta(days=1) + 1):
        day = first + number * timedelta(days=1)
        before, ours = _mongod_s(), time.process_time()
        clock_s = _timed(lambda day=day: rebuild(day, day + timedelta(days=1)))
        done.add({"clock_s": clock_s, "mongod_s": _mongod_s() - before, "ours_s": time.process_time() - ours})
    for name, field in (("by the clock", "clock_s"), ("MongoDB's", "mongod_s"), ("Python's", "ours_s")):
        report.add(Figure(f"summing all of it, s, {name}", [sum(day[field] for day in done.days)]))
    middle = first + DAYS / 2
    again_s = _timed(lambda: rebuild(middle, middle + timedelta(days=1)))
    whole = [day["clock_s"] for day in done.days[1:-1]]
    report.add(Figure("summing one day, events/s", [events / DAYS.days / second for second in whole]))
    report.add(Figure("a day in the middle again (nothing differs), events/s", [events / DAYS.days / again_s]))


def _ask_pages(report: Report, rounds: int) -> None:
    from apps.analytics.reports import usage_report
    from apps.analytics.spans import RANGES, named_span

    pages: dict[str, list[float]] = {name: [] for name in RANGES}
    for _ in range(rounds):
        for name, times in pages.items():
            times.append(1000 * _timed(lambda name=name: usage_report(named_span(name, zone=ZONE))))
    for name, times in pages.items():
        report.add(Figure(f"the page of {name}, ms", times, ceiling=500 if name == "30d" else None))
    try:
        took_ms = 1000 * _timed(_top_from_events)
        report.add(Figure("one list of it (top videos of 30 days) from the events, ms", [took_ms]))
    except ExecutionTimeout:
        report.note(f"one list of it (top videos of 30 days) from the events: not within {EVENTS_LIMIT_MS // 1000} s")
    for name, pipeline in _largest_questions():
        seen = _explained(pipeline)
        report.note(
            f"explain of 30 days, {name}: {seen['keys_examined']:,} index keys, {seen['documents_examined']} "
            f"documents, {seen['collection_scans']} collection scans"
        )


def _sum_one_minute(report: Report, videos: int) -> None:
    """What 1,000 requests a second leave to sum each minute, as the worker does it."""
    from apps.analytics.documents import Grain, UsageEvent
    from apps.analytics.periods import floor
    from apps.analytics.rollup_marks import mark_minutes
    from apps.analytics.rollups import roll_up
    from apps.core.clock import utcnow

    minute = floor(utcnow(), Grain.MINUTE) - timedelta(days=1, minutes=5)
    first = 90_000_000  # the numbers of the others are smaller
    make_events(first, first + MINUTE_OF, videos=videos, at=minute, step=timedelta(minutes=1) / MINUTE_OF)
    mark_minutes([minute])
    before, ours = _mongod_s(), time.process_time()
    clock_s = _timed(roll_up)
    report.add(Figure("one minute of 60,000 events, s until it is summed", [clock_s], ceiling=60))
    report.add(Figure("the same, processor time in s", [_mongod_s() - before + time.process_time() - ours]))
    UsageEvent.objects(id__gte=f"bench-{first}").delete()


def _top_from_events() -> None:
    from apps.analytics.documents import UsageEvent
    from apps.core.clock import utcnow

    group = {"_id": "$video_id", "requests": {"$sum": 1}, "bytes_sent": {"$sum": "$bytes_sent"}}
    match = {"at": {"$gte": utcnow() - DAYS}}
    pipeline = [{"$match": match}, {"$group": group}, {"$sort": {"requests": -1}}, {"$limit": 10}]
    list(UsageEvent._get_collection().aggregate(pipeline, allowDiskUse=True, maxTimeMS=EVENTS_LIMIT_MS))


def _largest_questions() -> list[tuple[str, list[dict[str, Any]]]]:
    from apps.analytics.documents import By
    from apps.analytics.reports import candidates_pipeline, step_pipeline, sums_pipeline
    from apps.analytics.spans import named_span

    span = named_span("30d", zone=ZONE)
    segments = span.segments(By.VIDEO)
    return [
        ("who may be a top video", candidates_pipeline(By.VIDEO, segments, 10)),
        ("what a hundred videos did", sums_pipeline(By.VIDEO, segments, [f"vid{n:08}" for n in range(100)], 10)),
        ("the chart", step_pipeline(span, {"by": By.ALL.value, "value": ""})),
        ("times to first byte", step_pipeline(span, {"by": By.FIRST_BYTE.value})),
    ]


def _explained(pipeline: list[dict[str, Any]]) -> dict[str, int]:
    from apps.analytics.documents import UsageRollup

    collection = UsageRollup._get_collection()
    command = {"aggregate": collection.name, "cursor": {}, "pipeline": pipeline}
    found = {"keys_examined": 0, "documents_examined": 0, "collection_scans": 0}
    _add_up(collection.database.command("explain", command, verbosity="executionStats"), found)
    return found


def _add_up(plan: Any, found: dict[str, int]) -> None:
    if isinstance(plan, dict):
        if plan.get("stage") == "COLLSCAN":
            found["collection_scans"] += 1
        if plan.get("executionSuccess") is not None:
            found["keys_examined"] += plan["totalKeysExamined"]
            found["documents_examined"] += plan["totalDocsExamined"]
        for value in plan.values():
            _add_up(value, found)
    elif isinstance(plan, list):
        for value in plan:
            _add_up(value, found)


def _mongod_s() -> float:
    """The processor time that MongoDB has used."""
    from mongoengine import get_db

    pid = get_db().command("serverStatus")["pid"]
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
