"""The same figures with few and with very many assets and keys: ``python -m bench.growth [--assets N] [--json]``.

MongoDB gets generated assets, keys and jobs (written in bulk; nothing of them is on disk). Between the sizes, in the
same run: answers per second of the lane and of Django; and for each page of the admin, each list of the API and what
the workers ask, how many index keys and documents MongoDB looks at (by its profiler: the same on any machine), how much
processor time it takes in MongoDB and here, and how long by the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from mongoengine import Document, get_db

from bench.instance import bench_instance
from bench.load import Plan, get, run_load
from bench.report import Figure, Report
from bench.web import web_process

FEW = 10_000
FEW_KEYS = 1_000
MANY_KEYS = 100_000
MAX_ASSETS = 2_000_000
BATCH = 5000
REPEATS = 7
CONNECTIONS = 32
PASSWORD = "only for this run"  # noqa: S105 - of a database that goes with the run
PAGES = {
    "the overview": "/admin/",
    "files": "/admin/cache",
    "files by size": "/admin/cache?sort=-size_bytes",
    "files found by a word": "/admin/cache?q=title77",
    "files in Telegram": "/admin/cache?state=cached",
    "keys": "/admin/keys",
    "keys that are on": "/admin/keys?state=on",
    "keys found by a word": "/admin/keys?q=key77",
    "jobs": "/admin/jobs",
    "users": "/admin/users",
    "analytics": "/admin/analytics",
    "audit log": "/admin/audit",
}
LISTS = {
    "keys by the API": "/api/v1/admin/keys",
    "users by the API": "/api/v1/admin/users",
    "jobs by the API": "/api/v1/jobs",
    "totals by the API": "/api/v1/cache/stats",
}


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
    key = create_key(name="bench", limit_per_hour=1_000_000_000, scopes=("info", "media", "search", "admin")).key
    admin = _Admin(key)
    _fill(0, FEW, 0, FEW_KEYS)
    few, few_asked = _rates(key, seconds, rounds), admin.look()
    began_at = time.monotonic()
    _fill(FEW, assets, FEW_KEYS, MANY_KEYS)
    report.note(
        f"{FEW:,} assets, {FEW_KEYS:,} keys and jobs; then {assets:,} and {MANY_KEYS:,}, written in "
        f"{time.monotonic() - began_at:.0f} s"
    )
    many, many_asked = _rates(key, seconds, rounds), admin.look()
    for name, values in few.items():
        report.add(Figure(f"{name}: {FEW:,}", values))
        report.add(Figure(f"{name}: {assets:,}", many[name]))
        if median(values):
            report.add(Figure(f"{name}: many to few", [median(many[name]) / median(values)], floor=0.9))
        else:
            report.note(f"{name}: nothing came in time with {FEW:,}, so there is no ratio")
    for name, before in few_asked.items():
        after = many_asked[name]
        report.add(Figure(f"{name}: looked at by MongoDB, few", [before["examined"]]))
        report.add(Figure(f"{name}: looked at by MongoDB, many", [after["examined"]]))
        report.add(Figure(f"{name}: processor time, few, ms", before["cpu_ms"]))
        report.add(Figure(f"{name}: processor time, many, ms", after["cpu_ms"]))
        ratio = median(after["cpu_ms"]) / median(before["cpu_ms"])
        report.add(Figure(f"{name}: processor time, many to few", [ratio], ceiling=1.1))
        report.add(Figure(f"{name}: by the clock, many, ms", after["ms"]))


def _fill(first: int, assets: int, first_key: int, keys: int) -> None:
    """Add what is missing to so many. Indexes are made when everything is there: a tenth of the time."""
    from apps.downloads.documents import MediaJob
    from apps.keys.documents import ApiKey
    from apps.telegram_cache.documents import Asset

    pattern = ApiKey._get_collection().find_one({"name": "bench"}, {"_id": False})
    if pattern is None:
        raise RuntimeError("there is no key")

    def key(number: int) -> dict[str, Any]:
        words = ["key", f"key{number}"]
        return {**pattern, "prefix": f"g{number:07}", "name": f"key{number}", "words": words}

    _insert(Asset, _asset, first, assets)
    _insert(ApiKey, key, first_key, keys)
    _insert(MediaJob, _job, first_key, keys)


def _insert(document: type[Document], make: Callable[[int], dict[str, Any]], first: int, end: int) -> None:
    collection = document._get_collection()
    if end - first > FEW:
        collection.drop_indexes()
    for batch in _batches(make, first, end):
        collection.insert_many(batch, ordered=False)
    document.ensure_indexes()


def _batches(make: Callable[[int], dict[str, Any]], first: int, end: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(first, end, BATCH):
        yield [make(number) for number in range(start, min(start + BATCH, end))]


_chance = Random(7)  # noqa: S311 - test data
_now = datetime.now(UTC)


def _asset(number: int) -> dict[str, Any]:
    from apps.telegram_cache.documents import AssetKey, MediaKind

    kind, variant = (MediaKind.AUDIO, "m4a") if number % 2 else (MediaKind.VIDEO, "720p")
    key = AssetKey(f"g{number:010}", kind, variant)
    used_at = _now - timedelta(seconds=10_000_000 * _chance.random())
    word = f"title{int(1e9 * _chance.random())}"
    return {
        "_id": key.asset_id, "video_id": key.video_id, "kind": kind.value, "variant": variant,
        "title": f"{word} of {number}", "words": [word, "of", str(number)], "duration_s": 200.0, "container": "m4a",
        "mime": "audio/mp4", "size_bytes": int(1e8 * _chance.random()), "generation": 1, "attempt": 1,
        "state": "cached", "is_best": True, "access_count": int(1000 * _chance.random()),
        "last_accessed_at": used_at, "created_at": used_at, "updated_at": used_at, "verified_at": used_at,
        "verify_tried_at": used_at, "parts": [], "orphans": [], "parts_generation": 1,
    }  # fmt: skip


def _job(number: int) -> dict[str, Any]:
    at = _now - timedelta(seconds=number)
    return {
        "_id": f"growth{number:010}", "asset_id": f"growth{number:018}", "video_id": f"g{number:010}", "kind": "audio",
        "variant": "m4a", "state": "done", "active": False, "stage": "done", "key_prefix": f"g{number:07}",
        "asked_by": [f"g{number:07}"], "created_at": at, "started_at": at, "finished_at": at, "updated_at": at,
        "announced": True,
    }  # fmt: skip


def _rates(key: str, seconds: float, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, lane in (("lane, answers/s", "on"), ("Django, answers/s", "off")):
        with web_process(FAST_LANE=lane) as (port, _):
            request = get("/api/v1/audio?url=growthaudi1", port=port, **{"X-API-Key": key})
            plan = Plan(port=port, requests=[request], connections=CONNECTIONS, seconds=seconds)
            run_load(plan)
            found[name] = [run_load(plan).per_s for _ in range(rounds)]
    return found


class _Admin:
    """Somebody logged in to the admin in this process, with a key for the API, and what the workers ask."""

    def __init__(self, key: str) -> None:
        from django.test import Client

        from apps.keys.documents import Role
        from apps.keys.services import create_user

        create_user(username="bench", password=PASSWORD, role=Role.OWNER)
        self._client, self._key = Client(SERVER_NAME="127.0.0.1"), key
        if self._client.post("/admin/login", {"username": "bench", "password": PASSWORD}).status_code != 302:
            raise RuntimeError("the login did not work")

    def look(self) -> dict[str, dict[str, Any]]:
        """For each name: ``examined`` once, ``cpu_ms`` and ``ms`` REPEATS times."""
        from apps.telegram_cache.selectors import assets_to_refetch, cache_totals, least_recently_verified

        works: dict[str, Callable[[], object]] = {
            **{f"admin, {name}": lambda path=path: self._get(path) for name, path in PAGES.items()},
            **{name: lambda path=path: self._get(path, HTTP_X_API_KEY=self._key) for name, path in LISTS.items()},
            "whose turn it is to be verified": lambda: least_recently_verified(50),
            "what to fetch again": lambda: assets_to_refetch(50),
            "counting the totals (once in 30 s)": cache_totals,
        }
        return {name: _asked(work) for name, work in works.items()}

    def _get(self, path: str, **headers: str) -> None:
        from django.core.cache import cache

        cache.delete("dashboard:assets")  # what is kept for 10 s would hide what counting it takes
        answer = self._client.get(path, **headers)
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code}")


def _asked(work: Callable[[], object]) -> dict[str, Any]:
    work()
    examined = _examined(work)
    cpu_ms, clock_ms = [], []
    for _ in range(REPEATS):
        before, began_at = _cpu_ms(), time.perf_counter()
        work()
        clock_ms.append((time.perf_counter() - began_at) * 1000)
        cpu_ms.append(_cpu_ms() - before)
    return {"examined": examined, "cpu_ms": cpu_ms, "ms": clock_ms}


def _examined(work: Callable[[], object]) -> int:
    """How many index keys and documents MongoDB looked at, by its profiler."""
    database = get_db()
    database.drop_collection("system.profile")
    database.command("profile", 2)
    try:
        work()
    finally:
        database.command("profile", 0)
    rows = database["system.profile"].find({"ns": {"$regex": f"^{database.name}[.](?!system)"}})
    return sum(row.get("keysExamined", 0) + row.get("docsExamined", 0) for row in rows)


def _cpu_ms() -> float:
    """Processor time of MongoDB and this process, to the nanosecond: a page takes less than a tick of the usual one."""
    pid = get_db().command("serverStatus", repl=0, metrics=0, wiredTiger=0)["pid"]
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            spent += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            continue
    return spent / 1e6 + time.process_time() * 1000


if __name__ == "__main__":
    main()
