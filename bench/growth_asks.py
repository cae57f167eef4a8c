"""What ``bench.growth`` asks one at a time: pages, lists, keys and files, of two sizes in turn.

``python -m bench.growth_asks`` is who asks, a process of its own for each size, with that size's MongoDB and a Redis
database of its own: it takes lines of JSON and answers each with one. Whatever the machine does meanwhile, slower or
faster, both sizes have it, as each round asks both; ratios are of the same round.

The cache's totals count every file, however it is done, so they are kept and counted anew now and then (``totals``).
Pages that show them are asked as people meet them, with totals that are there; the count itself is a row of its own.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from random import Random
from statistics import median
from typing import Any, Protocol

from mongoengine import get_db

from apps.core.supervisor import end_with_us
from bench.filling import key_prefix, video_id
from bench.instance import end_process
from bench.report import Figure, Report

COLD = 50
CALLS = 3  # of each in a round, one after another; their median counts
LOOKS = 3  # at what MongoDB looks at
SLOW_MS = 300.0  # what takes longer is called once in a round,
SLOW_ROUNDS = 3  # and so often
PASSWORD = "only for this run"  # noqa: S105 - of a database that goes with the run
COUNTING = "counting the totals"
WITHIN = 1.1
PAGES = {
    "the overview": "/admin/",
    "files": "/admin/cache",
    "files by size": "/admin/cache?sort=-size_bytes",
    "files found by a word of 200": "/admin/cache?q=named",
    "files found by a word of a hundredth of all": "/admin/cache?q=title77",
    "files in Telegram": "/admin/cache?state=cached",
    "keys": "/admin/keys",
    "keys that are on": "/admin/keys?state=on",
    "keys found by a word of 25": "/admin/keys?q=named",
    "keys found by a word of a hundredth of all": "/admin/keys?q=key77",
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

Found = dict[str, dict[str, Any]]
"""By name: ``examined`` of few and of many, and ``few`` and ``many``, the milliseconds of each round."""


class Asker(Protocol):
    """One size."""

    def names(self) -> list[str]:
        """What it can be asked, in order."""

    def examined(self, name: str) -> int:
        """How many index keys and documents MongoDB looks at."""

    def cpu_ms(self, name: str, calls: int) -> float:
        """Processor time of one call, MongoDB's and of who asks; the median of some."""


def ask_in_turn(few: Asker, many: Asker, *, rounds: int) -> Found:
    """Both sizes in each round, the other one first in each next round."""
    askers = {"few": few, "many": many}
    found: Found = {}
    for name in few.names():
        found[name] = {"examined": [asker.examined(name) for asker in askers.values()], "few": [], "many": []}
    is_slow = {name: any(asker.cpu_ms(name, 1) > SLOW_MS for asker in askers.values()) for name in found}
    for turn in range(rounds):
        for name, of_name in found.items():
            if is_slow[name] and turn >= SLOW_ROUNDS:
                continue
            for size in sorted(askers, reverse=turn % 2 == 1):
                of_name[size].append(askers[size].cpu_ms(name, 1 if is_slow[name] else CALLS))
    return found


def tell(report: Report, found: Found, *, assets: int) -> None:
    """Each as a row of its own, with what MongoDB looks at. Where that is no more with many, no more time is wanted."""
    dearer = []
    for name, of_name in found.items():
        few, many = of_name["examined"]
        ratios = [after / before for before, after in zip(of_name["few"], of_name["many"], strict=True)]
        looked = f"{few:,}, the same with both" if few == many else f"{few:,} and {many:,}"
        report.add(Figure(f"{name}: processor time with {assets:,}, ms", of_name["many"]))
        ceiling = WITHIN if many <= few else None
        report.add(Figure(f"{name}: many to few (looked at: {looked})", ratios, ceiling=ceiling))
        if many > few and median(ratios) > WITHIN:
            dearer.append(name)
    report.note("Looked at: index keys and documents, by MongoDB's profiler. A word of a hundredth of all finds more, "
                "the more there are; how many fit is counted up to 10,000. Where MongoDB looks at more, and it takes "
                f"more than 10 % longer: {'; '.join(dearer) or 'nowhere'}")  # fmt: skip
    report.note(_about_counting(found[COUNTING]))


def _about_counting(of_counting: Mapping[str, Any]) -> str:
    from apps.telegram_cache.services.totals import RENEW_S, RENEW_SHARE

    few, many = (_share(median(of_counting[size]), RENEW_S, RENEW_SHARE) for size in ("few", "many"))
    return (
        "Totals are a count of everything: its time grows with the number of files, and no 10 % is wanted of it. They "
        f"are kept in Redis and counted anew behind those who look, not before {RENEW_S:g} s and {RENEW_SHARE} times "
        f"as long as the last count took. So counting takes {few:.1f} % of one processor with few and {many:.1f} % "
        "with many at most, however many look. The overview and the totals by the API are asked with kept totals"
    )


def _share(count_ms: float, at_least_s: float, times: float) -> float:
    count_s = count_ms / 1000
    return 100 * count_s / max(at_least_s, times * count_s)


@dataclass(frozen=True)
class _Process:
    """An ``Asker`` that is a process."""

    process: subprocess.Popen[bytes]

    def names(self) -> list[str]:
        return list(self._ask({}))

    def examined(self, name: str) -> int:
        return int(self._ask({"name": name}))

    def cpu_ms(self, name: str, calls: int) -> float:
        return float(self._ask({"name": name, "calls": calls}))

    def _ask(self, question: Mapping[str, Any]) -> Any:
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("who asks was started without pipes")
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("who asks has ended; what it wrote above says why")
        return json.loads(answer)


@contextmanager
def asker(*, key: str, assets: int, keys: int, **settings: str) -> Iterator[Asker]:
    """Somebody who asks where there are so many. ``key``: of the API, with the admin scope. ``settings``: environment
    variables of theirs."""
    command = [sys.executable, "-m", "bench.growth_asks", key, str(assets), str(keys)]
    process = subprocess.Popen(
        end_with_us(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **settings}
    )
    try:
        yield _Process(process)
    finally:
        end_process(process)


def main() -> None:
    import django

    django.setup()
    logging.getLogger().setLevel(logging.ERROR)
    key, assets, keys = sys.argv[1:]
    works = _works(key, int(assets), int(keys))
    for line in sys.stdin:
        question = json.loads(line)
        sys.stdout.write(json.dumps(_answer(works, **question)) + "\n")
        sys.stdout.flush()


def _answer(works: Mapping[str, Callable[[], object]], name: str = "", calls: int = 0) -> Any:
    if not name:
        return list(works)
    work = works[name]
    _keep_totals()
    if not calls:
        return min(_examined(work) for _ in range(LOOKS))
    taken = []
    for _ in range(calls):
        before = _cpu_ms()
        work()
        taken.append(_cpu_ms() - before)
    return median(taken)


def _works(key: str, assets: int, keys: int) -> dict[str, Callable[[], object]]:
    """What there is to ask: pages of somebody logged in to the admin, lists by the API, and what the workers ask."""
    from apps.downloads.services.info import get_info
    from apps.keys.key_cache import KeyCache
    from apps.telegram_cache.selectors import assets_to_refetch, cache_totals, find_best_asset, least_recently_verified

    chance = Random(5)  # noqa: S311 - test data
    cold = KeyCache()
    client = _logged_in()

    def get(path: str, **headers: str) -> Callable[[], None]:
        def ask() -> None:
            answer = client.get(path, **headers)
            if answer.status_code != 200:
                raise RuntimeError(f"{path}: {answer.status_code}")

        return ask

    def some(end: int) -> list[int]:
        return chance.sample(range(end), COLD)

    return {
        f"{COLD} keys that are not in memory": lambda: [cold.get(key_prefix(n), max_age_s=0) for n in some(keys)],
        f"metadata of {COLD} videos": lambda: [get_info(video_id(n)) for n in some(keys)],
        f"the files of {COLD} videos": lambda: [  # every second made-up file is audio
            find_best_asset(video_id(2 * n + 1), "audio") for n in some(assets // 2)
        ],
        **{f"admin, {name}": get(path) for name, path in PAGES.items()},
        **{name: get(path, HTTP_X_API_KEY=key) for name, path in LISTS.items()},
        "whose turn it is to be verified": lambda: least_recently_verified(50),
        "what to fetch again": lambda: assets_to_refetch(50),
        COUNTING: cache_totals,
    }


def _logged_in() -> Any:
    from django.test import Client

    from apps.keys.documents import Role
    from apps.keys.selectors import find_user
    from apps.keys.services import create_user

    if find_user("bench") is None:
        create_user(username="bench", password=PASSWORD, role=Role.OWNER)
    client = Client(SERVER_NAME="127.0.0.1")
    if client.post("/admin/login", {"username": "bench", "password": PASSWORD}).status_code != 302:
        raise RuntimeError("the login did not work")
    return client


def _keep_totals() -> None:
    """Have kept totals be of this moment, so that nobody counts anew while somebody else's page is measured."""
    from apps.core.redis import redis_client
    from apps.telegram_cache.services import totals

    totals.recent_totals()
    kept = json.loads(redis_client().get(totals.KEY))  # type: ignore[arg-type]
    redis_client().set(totals.KEY, json.dumps({**kept, "made_at": time.time()}), ex=totals.KEPT_S)


def _examined(work: Callable[[], object]) -> int:
    """How many index keys and documents MongoDB looks at for it. A key that was read longer than a moment ago is read
    again, now and then: who wants to know what is looked at each time takes the least of several."""
    database = get_db()
    database.command("profile", 2)
    try:
        work()
    finally:
        database.command("profile", 0)
    rows = list(database["system.profile"].find({"ns": {"$regex": f"^{database.name}[.](?!system)"}}))
    database.drop_collection("system.profile")
    return sum(row.get("keysExamined", 0) + row.get("docsExamined", 0) for row in rows)


def _cpu_ms() -> float:
    """Processor time of MongoDB and this process, to the nanosecond, threads that have ended included."""
    clock_of_process = (~mongod_pid() << 3) | 2  # as clock_getcpuclockid makes it
    return (time.clock_gettime(clock_of_process) + time.process_time()) * 1000


@cache
def mongod_pid() -> int:
    """The process id of the MongoDB that is asked."""
    return int(get_db().command("serverStatus", repl=0, metrics=0, wiredTiger=0)["pid"])


if __name__ == "__main__":
    main()
