"""Counting requests in this process, for the time that Redis is away."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

MAX_NAMES = 10_000


class LocalLimiter:
    """The sliding window of ``limits.SCRIPT`` in this process's memory. Thread-safe; knows the last MAX_NAMES names."""

    def __init__(self, *, bucket_s: int) -> None:
        self._bucket_s = bucket_s
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, dict[int, int]] = OrderedDict()

    def count(self, name: str, limit: int, *, window_s: int) -> list[int]:
        """Count one request. Returns what the script returns: allowed (0 or 1), counted, ms until a slot frees."""
        now = time.monotonic()
        bucket = int(now // self._bucket_s)
        window = window_s // self._bucket_s
        with self._lock:
            counts = self._counts.setdefault(name, {})
            self._counts.move_to_end(name)
            if len(self._counts) > MAX_NAMES:
                self._counts.popitem(last=False)
            for old in [number for number in counts if number < bucket - window]:
                del counts[old]
            total = sum(counts.values())
            allowed = total < limit
            if allowed:
                counts[bucket] = counts.get(bucket, 0) + 1
                total += 1
            oldest = min(counts, default=bucket)
        return [int(allowed), total, int(((oldest + window + 1) * self._bucket_s - now) * 1000)]
