"""How work that blocks a thread learns that nobody wants it any more, without a parameter through every layer."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

STEP_S = 0.1

stop_of_this_work: ContextVar[threading.Event | None] = ContextVar("stop_of_this_work", default=None)
"""Set when the work that runs in this thread is called off. None: it cannot be."""


class WorkStopped(Exception):
    """The work was called off."""


def is_stopped() -> bool:
    stop = stop_of_this_work.get()
    return stop is not None and stop.is_set()


def raise_if_stopped() -> None:
    """Raises WorkStopped once the work that runs in this thread is called off."""
    if is_stopped():
        raise WorkStopped


def pause(seconds: float) -> None:
    """Sleep. Raises WorkStopped as soon as the work is called off."""
    stop = stop_of_this_work.get()
    if stop is None:
        time.sleep(seconds)
    elif stop.wait(seconds):
        raise WorkStopped
