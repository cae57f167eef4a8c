"""The same figures with few and with very many assets and keys: ``python -m bench.growth [--assets N] [--json]``.

MongoDB gets generated assets, keys, jobs and metadata (written in bulk; nothing of them is on disk). Answers per second
of the lane and of Django, and their processor time, are measured round by round in turn, with a second MongoDB that has
as few as in the beginning: a machine's speed changes within minutes. Before and after, for each page of the admin, each
list of the API, keys and metadata that nobody has in memory, and what the workers ask, how many index keys and
documents MongoDB looks at (by its profiler: the same on any machine) and how much processor time it takes in MongoDB
and here. With ``--keep FOLDER`` the database stays there, and a run that was stopped goes on with what is left to do.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from mongoengine import get_db

from bench.copies import smaller_copy
from bench.fast_lane import costed
from bench.filling import AUDIO, MANY_KEYS, beyond, fill, key_prefix, video_id
from bench.instance import bench_instance
from bench.load import Plan, get, run_load
from bench.report import Figure, Report
from bench.web import wait_until_idle, web_process

FEW = 10_000
FEW_KEYS = 1_000
MAX_ASSETS = 2_000_000
REPEATS = 7
SLOW_S = 3.0  # what takes so long in all is not repeated that often
CALM_S = 30.0
CONNECTIONS = 32
VIDEOS = 200
COLD = 50
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
    parser.add_argument("--keep", type=Path, help="a folder for the database, which stays")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (FEW < options.assets <= MAX_ASSETS and 0.5 <= options.seconds <= 30 and 1 <= options.rounds <= 10):
        parser.error(f"{FEW} to {MAX_ASSETS} assets, 0.5 to 30 seconds, 1 to 10 rounds")
    report = Report("growth")
    with bench_instance(bots=0, keep=options.keep):
        measure(report, assets=options.assets, seconds=options.seconds, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, *, assets: int, seconds: float, rounds: int) -> None:
    from apps.keys.services import create_key
    from bench.media import make_audio

    _once("the audio", lambda: make_audio(AUDIO))
    key = create_key(name="bench", limit_per_hour=1_000_000_000, scopes=("info", "media", "search", "admin")).key
    admin = _Admin(key)
    found = {}
    for number, keys in ((FEW, FEW_KEYS), (assets, MANY_KEYS)):
        first, first_key = (0, 0) if number == FEW else (FEW, FEW_KEYS)
        filled_s = fill(first, number, first_key, keys, once=_once)
        _calm_down()
        report.note(f"{number:,} assets; {keys:,} keys, jobs and videos' metadata: written in {filled_s:.0f} s")
        found[number] = _once(f"{number} asked", lambda number=number, keys=keys: admin.look(number, keys))
    rates = _once("rates of both", lambda: _rates(key, seconds, rounds))
    _tell(report, assets, (rates["few"], found[FEW]), (rates["many"], found[assets]))


def _tell(report: Report, assets: int, few: tuple[Any, Any], many: tuple[Any, Any]) -> None:
    for name, before in few[0].items():
        after = many[0][name]
        for size, values in ((FEW, before), (assets, after)):
            report.add(Figure(f"{name}, answers/s: {size:,}", values["per_s"]))
            report.add(Figure(f"{name}, processor time, us for an answer: {size:,}", values["cpu_us"]))
        per_s, cpu_us = (_by_round(before[unit], after[unit]) for unit in ("per_s", "cpu_us"))
        report.add(Figure(f"{name}, answers/s: many to few", per_s, floor=0.9))
        report.add(Figure(f"{name}, processor time: many to few", cpu_us, ceiling=1.1))
    looked_at = []
    for name, before in few[1].items():
        after = many[1][name]
        report.add(Figure(f"{name}: processor time with {assets:,}, ms", after["cpu_ms"]))
        report.add(_ratio(f"{name}: processor time, many to few", before["cpu_ms"], after["cpu_ms"], ceiling=1.1))
        if before["examined"] != after["examined"]:
            looked_at.append(f"{name} {before['examined']:,} and {after['examined']:,}")
    report.note(f"Index keys and documents that MongoDB looks at, few and many: {'; '.join(looked_at) or 'no other'}; "
                "all others the same")  # fmt: skip


def _by_round(few: list[float], many: list[float]) -> list[float]:
    return [after / before for before, after in zip(few, many, strict=True)]


def _ratio(name: str, few: list[float], many: list[float], **bounds: float) -> Figure:
    return Figure(name, [median(many) / median(few)], **bounds)


def _once(name: str, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; what it gave, where an earlier run over the same folder has done it."""
    collection = get_db()["bench_growth"]
    done = collection.find_one({"_id": name})
    if done is None:
        done = {"_id": name, "value": work()}
        collection.insert_one(done)
    return done["value"]


def _rates(key: str, seconds: float, rounds: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Both sizes in turn, the other one first in each next round."""
    metadata = f"lane, metadata of {VIDEOS} videos"
    found: dict[str, dict[str, dict[str, list[float]]]] = {"few": {}, "many": {}}
    with smaller_copy(beyond(FEW, FEW_KEYS)) as few_address:
        addresses = {"few": few_address, "many": os.environ["MONGO_URI"]}
        keys = {"few": FEW_KEYS, "many": MANY_KEYS}
        for lane, names in (("on", ("lane, a known file", metadata)), ("off", ("Django, a known file",))):
            with ExitStack() as stack:
                processes = {
                    size: stack.enter_context(web_process(FAST_LANE=lane, MONGO_URI=address))
                    for size, address in addresses.items()
                }
                for name in names:
                    plans = {
                        size: _plan(key, port, seconds, keys[size], one_file=name != metadata)
                        for size, (port, _) in processes.items()
                    }
                    for size, plan in plans.items():
                        run_load(plan)
                        found[size][name] = {"per_s": [], "cpu_us": []}
                    for turn in range(rounds):
                        for size in sorted(plans, reverse=turn % 2 == 1):
                            wait_until_idle(pid for _, pid in processes.values())
                            outcome, cpu_us = costed(plans[size], processes[size][1])
                            found[size][name]["per_s"].append(outcome.per_s)
                            found[size][name]["cpu_us"].append(cpu_us)
    return found


def _plan(key: str, port: int, seconds: float, keys: int, *, one_file: bool) -> Plan:
    chance = Random(3)  # noqa: S311 - test data
    paths = [f"/api/v1/info?url={video_id(chance.randrange(keys))}" for _ in range(VIDEOS)]
    if one_file:
        paths = [f"/api/v1/audio?url={AUDIO}"]
    requests = [get(path, port=port, **{"X-API-Key": key}) for path in paths]
    return Plan(port=port, requests=requests, connections=CONNECTIONS, seconds=seconds)


class _Admin:
    """Somebody logged in to the admin in this process, with a key for the API, and what the workers ask."""

    def __init__(self, key: str) -> None:
        from django.test import Client

        from apps.keys.documents import Role
        from apps.keys.selectors import find_user
        from apps.keys.services import create_user

        if find_user("bench") is None:
            create_user(username="bench", password=PASSWORD, role=Role.OWNER)
        self._client, self._key = Client(SERVER_NAME="127.0.0.1"), key
        if self._client.post("/admin/login", {"username": "bench", "password": PASSWORD}).status_code != 302:
            raise RuntimeError("the login did not work")

    def look(self, assets: int, keys: int) -> dict[str, dict[str, Any]]:
        """For each name: ``examined`` once, ``cpu_ms`` up to REPEATS times."""
        from apps.downloads.services.info import get_info
        from apps.keys.key_cache import KeyCache
        from apps.telegram_cache.selectors import (
            assets_to_refetch,
            cache_totals,
            find_best_asset,
            least_recently_verified,
        )

        chance = Random(5)  # noqa: S311 - test data
        cold = KeyCache()

        def numbers(end: int) -> list[int]:
            return [chance.randrange(end) for _ in range(COLD)]

        works: dict[str, Callable[[], object]] = {
            f"{COLD} keys that are not in memory": lambda: [
                cold.get(key_prefix(n), max_age_s=0) for n in numbers(keys)
            ],
            f"metadata of {COLD} videos": lambda: [get_info(video_id(n)) for n in numbers(keys)],
            f"the files of {COLD} videos": lambda: [find_best_asset(video_id(n), "audio") for n in numbers(assets)],
            **{f"admin, {name}": lambda path=path: self._get(path) for name, path in PAGES.items()},
            **{name: lambda path=path: self._get(path, HTTP_X_API_KEY=self._key) for name, path in LISTS.items()},
            "whose turn it is to be verified": lambda: least_recently_verified(50),
            "what to fetch again": lambda: assets_to_refetch(50),
            "counting the totals (once in 10 s)": cache_totals,
        }
        return {name: _asked(work) for name, work in works.items()}

    def _get(self, path: str, **headers: str) -> None:
        from apps.core.redis import redis_client
        from apps.telegram_cache.services import totals

        redis_client().delete(totals.KEY)  # what is kept would hide what counting it takes
        answer = self._client.get(path, **headers)
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code}")


def _asked(work: Callable[[], object]) -> dict[str, Any]:
    work()
    examined = _examined(work)
    cpu_ms: list[float] = []
    began_at = time.monotonic()
    while len(cpu_ms) < REPEATS and not (len(cpu_ms) > 1 and time.monotonic() - began_at > SLOW_S):
        before = _cpu_ms()
        work()
        cpu_ms.append(_cpu_ms() - before)
    return {"examined": examined, "cpu_ms": cpu_ms}


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


def _calm_down() -> None:
    """Have MongoDB write to the disk what it holds, and wait until it hardly works: filling it must not slow what is
    measured next."""
    get_db().client.admin.command("fsync")
    wait_until_idle([_mongod()], timeout_s=CALM_S)


def _mongod() -> int:
    return int(get_db().command("serverStatus", repl=0, metrics=0, wiredTiger=0)["pid"])


def _cpu_ms() -> float:
    """Processor time of MongoDB and this process, to the nanosecond, threads that have ended included."""
    clock_of_process = (~_mongod() << 3) | 2  # as clock_getcpuclockid makes it
    return (time.clock_gettime(clock_of_process) + time.process_time()) * 1000


if __name__ == "__main__":
    main()
