"""When a key was last used: written at most once a minute for each key, and never while a caller waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from pymongo.errors import PyMongoError

from apps.keys.services import mark_key_used

WRITE_EVERY_S = 60.0
MAX_REMEMBERED = 20_000
MAX_PENDING = 1_000

logger = logging.getLogger(__name__)
_lock = threading.Lock()
_written_at: OrderedDict[str, float] = OrderedDict()
_pending = threading.Semaphore(MAX_PENDING)


@cache
def _writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="last-used")


def note_key_used(prefix: str) -> None:
    """Note that a key was used just now. Returns at once, never fails; the note may be dropped under heavy load."""
    now = time.monotonic()
    with _lock:
        if now - _written_at.get(prefix, -WRITE_EVERY_S) < WRITE_EVERY_S:
            return
        _written_at[prefix] = now
        _written_at.move_to_end(prefix)
        if len(_written_at) > MAX_REMEMBERED:
            _written_at.popitem(last=False)
    if _pending.acquire(blocking=False):
        _writer().submit(_write, prefix)


def _write(prefix: str) -> None:
    try:
        mark_key_used(prefix, if_older_than_s=WRITE_EVERY_S)
    except PyMongoError as error:
        logger.warning("last use of a key was not written: %s", type(error).__name__)
    finally:
        _pending.release()
