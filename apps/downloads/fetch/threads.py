"""Blocking work beside the fetch's event loop, so that its lease goes on being renewed, and stopped when it stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from apps.downloads.stopping import stop_of_this_work

Result = TypeVar("Result")


async def in_thread(work: Callable[[threading.Event], Result], *, may_outlive: bool = False) -> Result:
    """Run ``work(stop)`` in a thread. When this task is cancelled, ``stop`` is set and the thread's end is awaited.

    ``may_outlive``: it changes nothing here (it only asks outside), so nobody need wait for its end; it ends soon all
    the same, by ``apps.downloads.stopping``.
    """
    stop = threading.Event()

    def run() -> Result:
        stop_of_this_work.set(stop)  # in the thread's own context
        return work(stop)

    running = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        running.add_done_callback(_look_at)
        if not may_outlive:
            await asyncio.wait({running})
        raise


def _look_at(running: asyncio.Future[Result]) -> None:
    """Take note of the outcome: the task that was cancelled has nobody to tell."""
    if not running.cancelled():
        running.exception()
