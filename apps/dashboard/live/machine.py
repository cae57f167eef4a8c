"""How busy this machine is: processors, memory and the disk of the hot store."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil
from django.conf import settings

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


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
