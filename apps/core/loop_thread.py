"""An event loop in a thread of its own, for threads whose calls outside must end the moment nobody wants them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

STEP_S = 0.1

Result = TypeVar("Result")


class LoopThread:
    """Begins with the first call; any number of threads may call. ``close`` ends it; it cannot be used after that."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, Result], *, check: Callable[[], None] = lambda: None) -> Result:
        """Wait for ``work`` and give what it gives. ``check`` is called every STEP_S meanwhile: what it raises ends the
        work (it is cancelled) and comes out of here."""
        running = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            while not wait([running], timeout=STEP_S).done:
                check()
        except BaseException:
            running.cancel()
            raise
        return running.result()

    def close(self) -> None:
        """End the loop. What still runs in it is cancelled. Idempotent."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        loop.close()
