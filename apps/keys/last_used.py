"""When a key was last used: written at most once a minute for each key, and never while a caller waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from pymongo.errors import PyMongoError

from apps.keys.services import mark_keys_used

WRITE_EVERY_S = 60.0
MAX_REMEMBERED = 20_000
MAX_PENDING = 100

logger = logging.getLogger(__name__)
_lock = threading.Lock()
_written_at: OrderedDict[str, float] = OrderedDict()
_due: set[str] = set()
_pending = threading.Semaphore(MAX_PENDING)


@cache
def _writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="last-used")


def note_keys_used(prefixes: Iterable[str]) -> None:
    """Note that keys were used just now. Returns at once, never fails; notes may be dropped under heavy load. All that
    are due are written with one update."""
    now = time.monotonic()
    with _lock:
        for prefix in prefixes:
            if now - _written_at.get(prefix, -WRITE_EVERY_S) >= WRITE_EVERY_S and len(_due) < MAX_REMEMBERED:
                _written_at[prefix] = now
                _written_at.move_to_end(prefix)
                _due.add(prefix)
        while len(_written_at) > MAX_REMEMBERED:
            _written_at.popitem(last=False)
        is_due = bool(_due)
    if is_due and _pending.acquire(blocking=False):
        _writer().submit(_write)


def _write() -> None:
    with _lock:
        prefixes = list(_due)
        _due.clear()
    try:
        if prefixes:
            mark_keys_used(prefixes, if_older_than_s=WRITE_EVERY_S)
    except PyMongoError as error:
        logger.warning("last use of keys was not written: %s", type(error).__name__)
    finally:
        _pending.release()
