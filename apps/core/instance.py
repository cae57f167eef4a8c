"""One running instance over one VAR_DIR: its folders, its lock, its limits, and what an earlier run left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Self, TextIO

import psutil

from ytserver.private_files import kept_secret

RUN_MARK = "YTSERVER_RUN"
"""In the environment of every process of an instance: by it an earlier run's processes are found, and no others."""
FOLDERS = ("run", "secrets", "log", "mongo", "redis")
MIN_FREE_BYTES = 300 * 1024 * 1024
LOG_MAX_BYTES = 10 * 1024 * 1024
WANTED_FILES = 20_000
LEFTOVER_GRACE_S = 10.0


class InstanceError(Exception):
    """The instance cannot start here. The text is one clear line for the operator."""


class Instance:
    """The one instance over a VAR_DIR, from ``claim`` to ``release``. ``mark`` is in each of its processes."""

    def __init__(self, var_dir: Path, mark: str, lock: TextIO) -> None:
        self.var_dir = var_dir
        self.mark = mark
        self._lock = lock

    @property
    def log_dir(self) -> Path:
        return self.var_dir / "log"

    @classmethod
    def claim(cls, var_dir: Path) -> Self:
        """Make the folders and take the lock, which is the kernel's (flock): a killed instance frees it.

        Raises InstanceError when the folder cannot be used or another instance uses it.
        """
        try:
            _make_folders(var_dir)
            lock = (var_dir / "run" / "lock").open("a+")
            _take(lock, var_dir)
            _check_room(var_dir)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return cls(var_dir, kept_secret(var_dir / "run" / "mark", lambda: secrets.token_hex(16)), lock)
        except OSError as error:
            raise InstanceError(describe_os_error(error, var_dir)) from error

    def release(self) -> None:
        self._lock.close()


def _make_folders(var_dir: Path) -> None:
    for name in FOLDERS:
        (var_dir / name).mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        (var_dir / name).chmod(0o700)  # Redis writes its file, with everybody's sessions, for all to read


def _take(lock: TextIO, var_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read(20).strip()
        lock.close()
        who = f" (process {pid})" if pid else ""
        raise InstanceError(
            f"{var_dir} is in use by a running instance{who}: stop that one, or set another VAR_DIR and PORT"
        ) from None


def _check_room(var_dir: Path) -> None:
    free_bytes = shutil.disk_usage(var_dir).free
    if free_bytes < MIN_FREE_BYTES:
        raise InstanceError(
            f"only {free_bytes // 2**20} MiB are free on the disk of {var_dir},"
            f" and {MIN_FREE_BYTES // 2**20} MiB are needed: make room, or set another VAR_DIR"
        )


def describe_os_error(error: OSError, var_dir: Path) -> str:
    """One line for a file system error under ``var_dir``."""
    place = error.filename or var_dir
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"no room left on the disk of {var_dir}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{place} cannot be written ({error.strerror}): make it writable, or set another VAR_DIR"
    return f"{place}: {error.strerror or error}"


def stop_leftovers(mark: str) -> int:
    """End every process of an earlier run with this mark, gently first. Returns how many there were.

    Call it with the instance locked: then whoever carries the mark has no parent any more.
    """
    leftovers = _marked_processes(mark)
    for process in leftovers:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(leftovers, timeout=LEFTOVER_GRACE_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=LEFTOVER_GRACE_S)
    return len(leftovers)


def _marked_processes(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(RUN_MARK) == mark and process.pid != os.getpid():
                found.append(process)
    return found


def bound_logs(folder: Path) -> None:
    """Put what is in logs that have grown large aside, one old file each. Also while programs write to them.

    They append, so they go on at the start of the emptied file; a line written in that moment can be lost.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size > LOG_MAX_BYTES:
            shutil.copy(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def raise_file_limit() -> str | None:
    """Allow as many open files as the system lets us. Returns a warning when that is few, else None."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS refuses "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft != resource.RLIM_INFINITY and soft < WANTED_FILES:
        return (
            f"only {soft} files may be open at once, {WANTED_FILES} are better for many streams:"
            " raise the hard limit (ulimit -Hn, LimitNOFILE= in systemd)"
        )
    return None


def last_log_line(log: Path) -> str:
    """The last line of a log, shortened, for a message about a program that ended."""
    with suppress(OSError):
        lines = log.read_bytes()[-8192:].decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""
    return ""
