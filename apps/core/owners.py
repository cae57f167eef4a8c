"""Who holds a lease: a text that names one process, so that others can tell when that process is gone."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

PROC = Path("/proc")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")  # a process gives itself any name
    except OSError:
        return ""


@cache
def _machine() -> str:
    """Host, boot and process-id space. Process ids mean the same only where this text is the same."""
    try:
        pid_space = str((PROC / "self/ns/pid").stat().st_ino)
    except OSError:
        pid_space = ""
    return f"{socket.gethostname()}/{_read(PROC / 'sys/kernel/random/boot_id').strip()[:8]}/{pid_space}"


def _start_ticks(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None when there is no such process, or only its zombie."""
    fields = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in {"Z", "X"} else None


def make_owner() -> str:
    """The text for this process: machine, pid and start time."""
    return f"{_machine()}:{os.getpid()}:{_start_ticks(os.getpid()) or ''}"


def is_owner_dead(owner: str | None) -> bool:
    """Whether ``owner`` (from ``make_owner``) certainly no longer runs. False when that cannot be told from here."""
    machine, pid, ticks = [*(owner or "").split(":"), "", "", ""][:3]
    if machine != _machine() or not pid.isdecimal() or not ticks:
        return False
    return _start_ticks(int(pid)) != ticks
