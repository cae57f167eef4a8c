"""Counting in this process, for the time that Redis is away."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from apps.keys.windows import Window

MAX_NAMES = 10_000


class LocalLimiter:
    """The windows of ``windows.SCRIPT`` in this process's memory. Thread-safe; knows the last MAX_NAMES names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, dict[int, int]] = OrderedDict()

    def decide(self, windows: tuple[Window, ...]) -> list[int]:
        """Count one request in all windows, or in none. Returns what the script returns."""
        now = time.monotonic()
        refuses, longest, answer = 0, -1, [0]
        with self._lock:
            opened = [self._open(window, int(now // window.bucket_s)) for window in windows]
            for number, (window, counts) in enumerate(zip(windows, opened, strict=True), start=1):
                total, needed = sum(counts.values()), max(window.cost, 1)
                bucket = _frees(window, counts, needed=needed, now_bucket=int(now // window.bucket_s))
                frees_in_ms = int(((bucket + window.buckets + 1) * window.bucket_s - now) * 1000)
                if total + needed > window.limit and frees_in_ms > longest:
                    refuses, longest = number, frees_in_ms
                answer += [total, frees_in_ms]
            answer[0] = refuses
            if refuses == 0:
                for number, (window, counts) in enumerate(zip(windows, opened, strict=True)):
                    if window.cost:
                        bucket = int(now // window.bucket_s)
                        counts[bucket] = counts.get(bucket, 0) + window.cost
                    answer[2 * number + 1] += window.cost
        return answer

    def take(self, window: Window, *, limit: int, wanted: int) -> tuple[int, int]:
        """Up to ``wanted`` of what ``limit`` leaves: how many, and in how many ms the next ones are free."""
        now = time.monotonic()
        bucket = int(now // window.bucket_s)
        with self._lock:
            counts = self._open(window, bucket)
            given = max(0, min(wanted, limit - sum(counts.values())))
            if given:
                counts[bucket] = counts.get(bucket, 0) + given
            oldest = min(counts, default=bucket)
        return given, int(((oldest + window.buckets + 1) * window.bucket_s - now) * 1000)

    def _open(self, window: Window, bucket: int) -> dict[int, int]:
        counts = self._counts.setdefault(window.name, {})
        self._counts.move_to_end(window.name)
        if len(self._counts) > MAX_NAMES:
            self._counts.popitem(last=False)
        for old in [number for number in counts if number < bucket - window.buckets]:
            del counts[old]
        return counts


def _frees(window: Window, counts: dict[int, int], *, needed: int, now_bucket: int) -> int:
    """The bucket that has to leave the window before ``needed`` fit in; when they fit, the oldest."""
    left = sum(counts.values())
    for bucket in sorted(counts):
        left -= counts[bucket]
        if left + needed <= window.limit:
            return bucket
    return now_bucket
