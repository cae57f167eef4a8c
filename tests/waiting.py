"""Waiting for a condition instead of sleeping, and a clock that the test moves."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Stands in for the ``time`` module of the code under test. It moves only when told to."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._monotonic_s = time.monotonic()
        self._time_s = time.time()

    def monotonic(self) -> float:
        return self._monotonic_s + self.ahead_s

    def time(self) -> float:
        return self._time_s + self.ahead_s


def wait_until(condition: Callable[[], object], *, timeout_s: float = 60, what: str = "it") -> None:
    """Return once ``condition`` holds. Fails after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_s} s")
        time.sleep(0.005)
