"""How fast the analytics page's figures come from sums, over generated events of the last 30 days.

``python -m bench.rollups [--events 1000000] [--videos 50000] [--rounds 7] [--json]``. Events are made up,
summed by the same code as ``manage.py rollups rebuild``, and asked by the same code as the page. Beside it, in turn:
the top videos of 30 days counted from the events themselves, as a page without sums would do. Count about 0.2 ms for
each event: 3 million in ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from bench.instance import bench_instance

DAYS = 30
CHUNK = 10_000
SHAPES = 4_999
STATUSES = [200] * 88 + [404] * 6 + [429] * 4 + [502] * 2
TIERS = ["hot"] * 8 + ["telegram", "external"]
MAX_EVENTS = 20_000_000
ROUTES = ["/api/v1/audio", "/api/v1/video", "/api/v1/info", "/api/v1/search", "/stream/audio", "/stream/video"]
KEYS = 200


def main() -> None:
    options = _read_options()
    with bench_instance(bots=1):
        results = _run(options)
    sys.stdout.write(f"{json.dumps(results) if options.json else _as_text(results)}\n")


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rollups", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="how many events (default: 1,000,000)")
    parser.add_argument("--videos", type=int, default=50_000, help="of how many videos (default: 50,000)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (default: 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (CHUNK <= options.events <= MAX_EVENTS and options.videos > 0 and 1 <= options.rounds <= 100):
        parser.error(f"events from {CHUNK} to {MAX_EVENTS}, 1 to 100 rounds")
    return options


def _run(options: argparse.Namespace) -> dict[str, Any]:
    from apps.analytics.documents import UsageEvent, UsageRollup
    from apps.analytics.reports import usage_report
    from apps.analytics.rollups import rebuild
    from apps.analytics.spans import RANGES, named_span
    from apps.core.clock import utcnow

    start = utcnow() - timedelta(days=DAYS)
    made_s = _timed(lambda: _make_events(options.events, options.videos, start))
    summed_s = _timed(lambda: rebuild(start, utcnow()))
    again_s = _timed(lambda: rebuild(start, utcnow()))
    zone = ZoneInfo("Europe/Berlin")
    pages: dict[str, list[float]] = {name: [] for name in RANGES}
    from_events: list[float] = []
    for number in range(options.rounds):
        for name, times in pages.items():
            times.append(_timed(lambda name=name: usage_report(named_span(name, zone=zone))))
        if number < 2:
            from_events.append(_timed(_top_from_events))
    return {
        "events": UsageEvent._get_collection().estimated_document_count(),
        "sums": UsageRollup._get_collection().estimated_document_count(),
        "made_s": made_s,
        "summed_s": summed_s,
        "summed_again_s": again_s,
        "requests_30d": usage_report(named_span("30d", zone=zone)).totals.requests,
        "page_s": {name: _spread(times) for name, times in pages.items()},
        "one_list_from_events_s": _spread(from_events),
        "explain": _explain(),
    }


def _make_events(number: int, videos: int, start: datetime) -> None:
    """A few videos and keys have most of the requests, as it is in life. The same each time, but for the clock.

    In the order of time, as events come. Each is one of SHAPES prepared ones, with its own time, video and key:
    making them up must not take longer than storing them.
    """
    from apps.analytics.documents import UsageEvent

    collection = UsageEvent._get_collection()
    for name in ("key_prefix_1_at_-1", "video_id_1_at_-1"):  # made at once in the end: half the time
        collection.drop_index(name)
    random = Random(7)  # noqa: S311 - made-up events
    shapes = [_shape(random) for _ in range(SHAPES)]
    keys = [f"key{count:05}" for count in range(KEYS)]
    draw, step = random.random, timedelta(days=DAYS) / number
    for first in range(0, number, CHUNK):
        events = [
            {
                "_id": f"bench-{count}",
                "at": start + count * step,
                "key_prefix": keys[int(KEYS * draw() ** 4)],
                "video_id": f"vid{int(videos * draw() ** 4):08}",
                **shapes[count % SHAPES],
            }
            for count in range(first, min(number, first + CHUNK))
        ]
        collection.insert_many(events, ordered=False)
    UsageEvent.ensure_indexes()


def _shape(random: Random) -> dict[str, Any]:
    return {
        "route": random.choice(ROUTES),
        "method": "GET",
        "status": random.choice(STATUSES),
        "tier": random.choice(TIERS),
        "first_byte_s": random.expovariate(50),
        "duration_s": random.random(),
        "bytes_sent": int(5_000_000 * random.random()),
    }


def _top_from_events() -> None:
    from apps.analytics.documents import UsageEvent
    from apps.core.clock import utcnow

    group = {"_id": "$video_id", "requests": {"$sum": 1}, "bytes_sent": {"$sum": "$bytes_sent"}}
    match = {"at": {"$gte": utcnow() - timedelta(days=DAYS)}}
    pipeline = [{"$match": match}, {"$group": group}, {"$sort": {"requests": -1}}, {"$limit": 10}]
    list(UsageEvent._get_collection().aggregate(pipeline, allowDiskUse=True))


def _explain() -> dict[str, int]:
    """What the largest question, the top videos of 30 days, looks at."""
    from apps.analytics.documents import By, UsageRollup
    from apps.analytics.reports import candidates_pipeline
    from apps.analytics.spans import named_span

    span = named_span("30d", zone=ZoneInfo("UTC"))
    collection = UsageRollup._get_collection()
    command = {
        "aggregate": collection.name,
        "cursor": {},
        "pipeline": candidates_pipeline(By.VIDEO, span.segments(By.VIDEO), 10),
    }
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


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _spread(times: list[float]) -> dict[str, float]:
    return {"min": min(times), "median": statistics.median(times), "max": max(times)}


def _as_text(results: dict[str, Any]) -> str:
    lines = [
        f"{results['events']:,} events made in {results['made_s']:.0f} s, {results['sums']:,} sums in "
        f"{results['summed_s']:.0f} s, again (nothing differs) in {results['summed_again_s']:.0f} s",
        "",
        "the whole page's figures, min / median / max:",
    ]
    lines += [f"  {name:>4}  {_text(spread)}" for name, spread in results["page_s"].items()]
    lines += [f"one list (top videos of 30 days) from the events: {_text(results['one_list_from_events_s'])}"]
    seen = results["explain"]
    lines += [
        f"top videos of 30 days from sums: {seen['keys_examined']:,} index keys, {seen['documents_examined']} "
        f"documents, {seen['collection_scans']} collection scans"
    ]
    return "\n".join(lines)


def _text(spread: dict[str, float]) -> str:
    return " / ".join(f"{spread[name] * 1000:,.0f}" for name in ("min", "median", "max")) + " ms"


if __name__ == "__main__":
    main()
