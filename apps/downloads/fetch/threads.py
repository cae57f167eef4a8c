"""Blocking work beside the fetch's event loop, so that its lease goes on being renewed, and stopped when it stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(work: Callable[[threading.Event], Result]) -> Result:
    """Run ``work(stop)`` in a thread. When this task is cancelled, ``stop`` is set and the thread's end is awaited."""
    stop = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # seen: the cancelled task has nobody to tell
        raise
