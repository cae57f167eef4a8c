"""Times in fixed buckets: counts of any number of processes and moments add up, and quantiles come out of the sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

_MS = (
    1,
    2,
    3,
    5,
    7.5,
    10,
    15,
    20,
    30,
    50,
    75,
    100,
    150,
    200,
    300,
    500,
    750,
    1000,
    1500,
    2000,
    3000,
    5000,
    10000,
    30000,
)
BOUNDS_S = tuple(bound / 1000 for bound in _MS)
"""Upper bounds in seconds, inclusive; one more bucket holds what took longer."""
BUCKETS = len(BOUNDS_S) + 1


def bucket_of(seconds: float) -> int:
    """The number of the bucket that a time belongs to."""
    return bisect_left(BOUNDS_S, seconds)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The time in seconds below which ``share`` (0 to 1) of the counted ones lie; None when nothing was counted.

    Interpolated inside its bucket, so off by less than the bucket is wide. What took longer than the last bound reads
    as that bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    passed = 0
    for index, count in enumerate(counts):
        if count and passed + count >= wanted:
            if index == len(BOUNDS_S):
                break
            lower = BOUNDS_S[index - 1] if index else 0.0
            return lower + (BOUNDS_S[index] - lower) * max(0.0, wanted - passed) / count
        passed += count
    return BOUNDS_S[-1]
