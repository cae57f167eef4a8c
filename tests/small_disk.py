"""A real file system of a few MiB, for tests of what happens when a disk is full. Mounting one takes root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apps.core.room import room_of

MIB = 1024 * 1024
SIZE_BYTES = 24 * MIB
_UNMOUNT_AT_THE_END = 'read -r _; umount --lazy "$0"'


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of SIZE_BYTES at ``folder``. Skips the test where mounting is not allowed.

    A shell of its own takes it away when this process lets go of the pipe to it: here at the end, or by dying.
    """
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root: a really full disk is not tested here")
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=0700", "ytserver-test", str(folder)]
    with subprocess.Popen(
        ["/bin/sh", "-c", _UNMOUNT_AT_THE_END, str(folder)],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as unmounter:  # fmt: skip
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip() or f"mount ended with {done.returncode}"
            pytest.skip(f"a small file system cannot be mounted here, so a really full disk is not tested: {reason}")
        yield folder
    assert unmounter.returncode == 0, f"{folder} is still mounted"
    assert not folder.is_mount()


def free_bytes(folder: Path) -> int:
    return room_of(folder).free_bytes


@contextmanager
def filled(folder: Path, *, leaving: int = 0) -> Iterator[None]:
    """Somebody else's file takes all the room there is on the folder's disk but ``leaving`` bytes."""
    other = folder / ".somebody-elses-file"
    with other.open("wb") as file:
        if (size := free_bytes(folder) - leaving) > 0:
            os.posix_fallocate(file.fileno(), 0, size)
    try:
        yield
    finally:
        other.unlink()
