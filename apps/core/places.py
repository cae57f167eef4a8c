"""Which work of the ``care`` queue may hold a thread for long: never all of them, so that urgent care goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from django.conf import settings


@contextmanager
def place(kind: str) -> Iterator[bool]:
    """Whether this thread may do work of a kind that can take long (slow receivers, Telegram, many entries) now.

    Half of a process's threads at most do work of one kind, and one is left by all kinds together. A worker with one
    thread has one place for everything.
    """
    held: list[threading.BoundedSemaphore] = []
    for places in (_of_kind(kind), _of_all()):
        if not places.acquire(blocking=False):
            break
        held.append(places)
    try:
        yield len(held) == 2
    finally:
        for places in held:
            places.release()


@cache
def _of_kind(kind: str) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(max(1, settings.ENV.worker_threads // 2))


@cache
def _of_all() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(max(1, settings.ENV.worker_threads - 1))
