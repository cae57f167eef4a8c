"""The same figures with few and with very many assets and keys: ``python -m bench.growth [--assets N] [--json]``.

MongoDB gets generated assets and keys (written in bulk; nothing of them is on disk). Between the sizes, in the same
run: answers per second of the lane and of Django, and how long the admin's lists and sums take.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from bench.instance import bench_instance
from bench.load import Plan, get, run_load
from bench.report import Figure, Report
from bench.web import web_process

FEW = 10_000
MANY_KEYS = 100_000
MAX_ASSETS = 2_000_000
BATCH = 5000
REPEATS = 15
CONNECTIONS = 32


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--assets", type=int, default=1_000_000, help="the larger number (default: 1,000,000)")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (FEW < options.assets <= MAX_ASSETS and 0.5 <= options.seconds <= 30 and 1 <= options.rounds <= 10):
        parser.error(f"{FEW} to {MAX_ASSETS} assets, 0.5 to 30 seconds, 1 to 10 rounds")
    report = Report("growth")
    with bench_instance(bots=0):
        measure(report, assets=options.assets, seconds=options.seconds, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, *, assets: int, seconds: float, rounds: int) -> None:
    from apps.keys.services import create_key
    from bench.media import make_audio

    make_audio("growthaudi1")
    key = create_key(name="bench", limit_per_hour=1_000_000_000).key
    _fill_assets(0, FEW)
    few = _look(key, seconds, rounds)
    began_at = time.monotonic()
    _fill_assets(FEW, assets)
    _fill_keys(MANY_KEYS)
    report.note(f"{assets:,} assets and {MANY_KEYS:,} keys, written in {time.monotonic() - began_at:.0f} s")
    many = _look(key, seconds, rounds)
    for name, values in few.items():
        better = "answers/s" in name
        report.add(Figure(f"{name}: {FEW:,}", values))
        report.add(Figure(f"{name}: {assets:,}", many[name]))
        if not median(values):
            report.note(f"{name}: nothing came in time with {FEW:,}, so there is no ratio")
            continue
        ratio = median(many[name]) / median(values)
        limits: dict[str, float] = {"floor": 0.9} if better else {"ceiling": 1.1}
        report.add(Figure(f"{name}: many to few", [ratio], **limits))


def _fill_assets(first: int, end: int) -> None:
    from apps.telegram_cache.documents import Asset

    for batch in _batches(_asset, first, end):
        Asset._get_collection().insert_many(batch, ordered=False)


def _fill_keys(count: int) -> None:
    """So many keys, copies of the first one under other prefixes."""
    from apps.keys.documents import ApiKey

    row = ApiKey._get_collection().find_one()
    if row is None:
        raise RuntimeError("there is no key")
    row.pop("_id")
    for batch in _batches(lambda n: {**row, "prefix": f"g{n:07}", "name": f"key {n}"}, 0, count):
        ApiKey._get_collection().insert_many(batch, ordered=False)


def _batches(make: Callable[[int], dict[str, Any]], first: int, end: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(first, end, BATCH):
        yield [make(number) for number in range(start, min(start + BATCH, end))]


def _asset(number: int) -> dict[str, Any]:
    from apps.telegram_cache.documents import AssetKey, MediaKind

    chance = random.Random(number)  # noqa: S311 - test data
    key = AssetKey(
        f"g{number:010}", MediaKind.AUDIO if number % 2 else MediaKind.VIDEO, "m4a" if number % 2 else "720p"
    )
    used_at = datetime.now(UTC) - timedelta(seconds=chance.randrange(10_000_000))
    return {
        "_id": key.asset_id, "video_id": key.video_id, "kind": key.kind.value, "variant": key.variant,
        "title": f"Title {chance.randrange(10**9)} of {number}", "duration_s": 200.0, "container": "m4a",
        "mime": "audio/mp4", "size_bytes": chance.randrange(10**8), "generation": 1, "attempt": 1, "state": "cached",
        "is_best": True, "access_count": chance.randrange(1000), "last_accessed_at": used_at, "created_at": used_at,
        "updated_at": used_at, "verified_at": used_at, "parts": [], "orphans": [], "parts_generation": 1,
    }  # fmt: skip


def _look(key: str, seconds: float, rounds: int) -> dict[str, list[float]]:
    from apps.dashboard.asset_list import ASSET_LIST
    from apps.dashboard.key_list import KEY_LIST
    from apps.dashboard.lists.page import read_page
    from apps.telegram_cache.selectors import cache_totals

    found: dict[str, list[float]] = {}
    for name, lane in (("lane, answers/s", "on"), ("Django, answers/s", "off")):
        with web_process(FAST_LANE=lane) as (port, _):
            request = get("/api/v1/audio?url=growthaudi1", port=port, **{"X-API-Key": key})
            plan = Plan(port=port, requests=[request], connections=CONNECTIONS, seconds=seconds)
            run_load(plan)
            found[name] = [run_load(plan).per_s for _ in range(rounds)]
    for name, read in (
        ("admin's list of files, ms", lambda: read_page(ASSET_LIST, {})),
        ("the same by size, ms", lambda: read_page(ASSET_LIST, {"sort": "-size_bytes"})),
        ("admin's list of keys, ms", lambda: read_page(KEY_LIST, {})),
        ("totals of the cache, ms", lambda: cache_totals()),
    ):
        found[name] = [median(_timed_ms(read) for _ in range(REPEATS)) for _ in range(rounds)]
    return found


def _timed_ms(read: Callable[[], object]) -> float:
    began_at = time.perf_counter()
    read()
    return (time.perf_counter() - began_at) * 1000


if __name__ == "__main__":
    main()
