"""How large the hot store is, for whoever asks often: looking means asking the disk about every file."""

from __future__ import annotations

import math
import time

from django.conf import settings
from django.core.cache import cache

from apps.streaming.hotstore import HotStore, HotUsage

FRESH_S = 10
REST_SHARE = 30  # as many times as long as looking took passes before the next look
KEY = "streaming:hot-usage"


def hot_usage() -> HotUsage:
    """As of the last FRESH_S, or of REST_SHARE times as long as a look takes (100,000 files: a second), for all
    processes. Raises what Redis raises."""
    kept = cache.get(KEY)
    if kept is not None:
        return HotUsage(*kept)
    began_at = time.monotonic()
    usage = HotStore(settings.ENV.hot_root).usage()
    cache.set(KEY, tuple(usage), math.ceil(max(FRESH_S, REST_SHARE * (time.monotonic() - began_at))))
    return usage
