"""How busy each machine of the installation is: processors, memory and the disk of the hot store.

While somebody looks, every web process and every worker says in Redis how its machine is doing; what is older than
FRESH_S is not shown. While nobody looks, nothing is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from django.conf import settings
from redis import RedisError

from apps.core.redis import redis_client

KEY = "yt:machines"
WATCHED = "yt:machines:watched"
REPORT_S = 5.0
FRESH_S = 15.0
WATCHED_S = 10

psutil.cpu_percent()  # the first call has nothing to compare with


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``cpu_percent`` is the mean since the last look of this process."""

    name: str
    cpu_percent: float
    cpu_count: int
    load: float  # processes that run or want to, mean of a minute
    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int

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
        cpu_percent=psutil.cpu_percent(),
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


async def keep_reporting() -> None:
    """Report every REPORT_S seconds until cancelled. For the event loop of a web process."""
    while True:
        with suppress(RedisError, OSError):  # the next time is soon
            await asyncio.to_thread(report_machine)
        await asyncio.sleep(REPORT_S)


def machines() -> list[Machine]:
    """This machine as it is right now, then all others that reported lately, by name. From now on they report.

    Raises redis.RedisError.
    """
    client, mine, oldest = redis_client(), machine(), time.time() - FRESH_S
    client.set(WATCHED, b"1", ex=WATCHED_S)
    reports = {report["name"]: report for report in map(json.loads, client.hvals(KEY))}
    if gone := [name for name, report in reports.items() if report["at"] < oldest]:
        client.hdel(KEY, *gone)
    others = [report for name, report in sorted(reports.items()) if name not in {mine.name, *gone}]
    return [mine, *(Machine(**{name: value for name, value in each.items() if name != "at"}) for each in others)]


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
