"""How busy each machine of the installation is: processors, memory and the disk of the hot store.

While somebody looks, every web process and every worker says in Redis how its machine is doing. One that falls silent
for FRESH_S meanwhile is away, and shown so for AWAY_KEPT_S; one that is stopped in good order takes itself off the
list. While nobody looks, nothing is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings
from redis import RedisError

from apps.core.redis import redis_client

KEY = "yt:machines"
WATCHED = "yt:machines:watched"
REPORT_S = 5.0
FRESH_S = 15.0
WATCHED_S = 10
AWAY_KEPT_S = 3600.0

MIN_GAP_S = 0.5  # between two measurements: the kernel counts in hundredths of a second


class _Processors:
    """Their use since the last look of this process, whichever thread had it (``psutil.cpu_percent`` remembers one look
    for each thread)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._times = psutil.cpu_times()
        self._percent = 0.0

    def percent(self) -> float:
        with self._lock:
            if time.monotonic() - self._looked_at >= MIN_GAP_S:
                before, self._times, self._looked_at = self._times, psutil.cpu_times(), time.monotonic()
                whole = _all(self._times) - _all(before)
                idle = _idle(self._times) - _idle(before)
                self._percent = round(100 * min(max(1 - idle / whole, 0.0), 1.0), 1) if whole > 0 else 0.0
            return self._percent


def _all(times: Any) -> float:
    return float(
        sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    )  # those are in user and nice


def _idle(times: Any) -> float:
    return float(times.idle + getattr(times, "iowait", 0.0))


_processors = _Processors()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``cpu_percent`` is the mean since the last look of this process. ``silent_s``: how long ago a machine that is
    away was heard of; its other figures are from then. 0: it is here.

    While a new version is rolled out, machines of the old one report too: a field that is added has a default."""

    name: str
    cpu_percent: float
    cpu_count: int
    load: float  # processes that run or want to, mean of a minute
    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    silent_s: float = 0.0

    @property
    def memory_percent(self) -> float:
        return 100 * self.memory_used_bytes / self.memory_total_bytes

    @property
    def disk_percent(self) -> float:
        return 100 * self.disk_used_bytes / self.disk_total_bytes


def machine() -> Machine:
    """This machine right now. Reads a few files of the kernel; no waiting."""
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(_existing(settings.ENV.hot_root))
    return Machine(
        name=socket.gethostname(),
        cpu_percent=_processors.percent(),
        cpu_count=psutil.cpu_count() or 1,
        load=os.getloadavg()[0],
        memory_used_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        disk_used_bytes=disk.total - disk.free,
        disk_total_bytes=disk.total,
    )


def report_machine() -> None:
    """Say how this machine is doing, if somebody looks. Raises redis.RedisError."""
    client = redis_client()
    if client.exists(WATCHED):
        mine = machine()
        client.hset(KEY, mine.name, json.dumps({"at": time.time(), **asdict(mine)}))


def forget_machine() -> None:
    """Take this machine off the list: a process of it ends in good order. Others of it put it back."""
    redis_client().hdel(KEY, socket.gethostname())


async def keep_reporting() -> None:
    """Report every REPORT_S seconds until cancelled. For the event loop of a web process."""
    while True:
        with suppress(RedisError, OSError):  # the next time is soon
            await asyncio.to_thread(report_machine)
        await asyncio.sleep(REPORT_S)


def machines(*, for_s: int = WATCHED_S) -> list[Machine]:
    """This machine as it is right now, then all others that are here or away, by name. For ``for_s`` from now on they
    report.

    Raises redis.RedisError.
    """
    mine, now = machine(), time.time()
    watched_since, reports = _look(now, for_s)
    found = [mine]
    for name, report in sorted(reports.items()):
        silent_s = now - report.pop("at")
        if silent_s > AWAY_KEPT_S:
            redis_client().hdel(KEY, name)
        elif name != mine.name and silent_s <= FRESH_S:
            found.append(_read(report))
        elif name != mine.name and now - watched_since > FRESH_S:  # it had the time to report
            found.append(_read({**report, "silent_s": silent_s}))
    return found


def _look(now: float, for_s: int) -> tuple[float, dict[str, dict[str, Any]]]:
    """Since when somebody has been looking without a break, and the last report of each machine."""
    with redis_client().pipeline(transaction=False) as pipeline:
        pipeline.set(WATCHED, repr(now), ex=for_s, nx=True)
        pipeline.ttl(WATCHED)
        pipeline.get(WATCHED)
        pipeline.hvals(KEY)
        _, left_s, since, reports = pipeline.execute()
    if left_s < for_s - 1:  # never shorter: who looks often does not end it for who looks seldom
        redis_client().expire(WATCHED, for_s)
    return float(since or now), {report["name"]: report for report in map(json.loads, reports)}


def _read(report: dict[str, Any]) -> Machine:
    """A machine from its report. What only a newer version reports is left out."""
    return Machine(**{field.name: report[field.name] for field in fields(Machine) if field.name in report})


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
