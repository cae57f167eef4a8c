"""How large the hot store is, for whoever asks often: looking means asking the disk about every file."""

from __future__ import annotations

import math
import time

from django.conf import settings
from django.core.cache import cache

from apps.core.hot_names import hot_store_name
from apps.streaming.hotstore import HotStore, HotUsage

FRESH_S = 10
REST_SHARE = 30  # as many times as long as looking took passes before the next look
KEY = "streaming:hot-usage:"  # and the name of the store
OVER_BOUND = 1.1  # files come before others have left


def hot_usage() -> HotUsage:
    """As of the last FRESH_S, or of REST_SHARE times as long as a look takes (100,000 files: a second), for all
    processes that use this hot store. Raises what Redis raises."""
    key = _key()
    kept = cache.get(key)
    if kept is not None:
        return HotUsage(*kept)
    began_at = time.monotonic()
    usage = hot_usage_now()
    cache.set(key, tuple(usage), math.ceil(max(FRESH_S, REST_SHARE * (time.monotonic() - began_at))))
    return usage


def _key() -> str:
    try:
        return f"{KEY}{hot_store_name()}"
    except OSError:  # of a folder that cannot be written
        return KEY


def hot_usage_now() -> HotUsage:
    """For who asks once. Asks neither Redis nor MongoDB."""
    return HotStore(settings.ENV.hot_root).usage()


def is_over(usage: HotUsage, max_bytes: int) -> bool:
    """Whether the store is so much larger than it may be that somebody should know."""
    return usage.disk_bytes > max_bytes * OVER_BOUND
