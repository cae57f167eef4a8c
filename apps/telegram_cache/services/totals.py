"""The cache's totals for whoever asks often: counting reads every asset, so one answer serves everybody for a while."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from apps.core.redis import redis_client
from apps.telegram_cache.selectors import CacheTotals, KindTotals, UsedAsset, cache_totals

FRESH_S = 30.0
KEPT_S = 3600  # while somebody counts anew, the others get the answer before
COUNTING_S = 60  # longer than a count takes; who dies counting keeps the others from it no longer
FIRST_WAIT_S = 5.0  # for the very first answer; then each counts for itself
POLL_S = 0.05
MOST_USED = 10
KEY = "yt:tg:totals"
LOCK = f"{KEY}:counting"


def recent_totals() -> CacheTotals:
    """``cache_totals`` as of the last 30 s; of any number of callers in all processes one counts.

    While it counts, which takes seconds with a million assets, the others get the totals before. Raises RedisError.
    """
    wait_until = time.monotonic() + FIRST_WAIT_S
    while True:
        totals, is_fresh = _kept()
        if totals is not None and is_fresh:
            return totals
        if redis_client().set(LOCK, b"1", nx=True, ex=COUNTING_S):
            try:
                totals, is_fresh = _kept()  # somebody may have counted in between
                return totals if totals is not None and is_fresh else _count()
            finally:
                redis_client().delete(LOCK)
        if totals is not None:
            return totals
        if time.monotonic() > wait_until:
            return _count()
        time.sleep(POLL_S)


def _count() -> CacheTotals:
    totals = cache_totals(most_used=MOST_USED)
    packed = json.dumps({"made_at": time.time(), "totals": asdict(totals)}, default=_plain)
    redis_client().set(KEY, packed, ex=KEPT_S)
    return totals


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _kept() -> tuple[CacheTotals | None, bool]:
    """The last answer, and whether it is fresh."""
    packed = cast("bytes | None", redis_client().get(KEY))
    if packed is None:
        return None, False
    kept = json.loads(packed)
    totals = kept["totals"]
    used = [UsedAsset(**{**row, "last_accessed_at": _moment(row["last_accessed_at"])}) for row in totals["most_used"]]
    by_kind = tuple(KindTotals(**row) for row in totals["by_kind"])
    is_fresh = 0 <= time.time() - kept["made_at"] < FRESH_S
    return CacheTotals(**{**totals, "by_kind": by_kind, "most_used": tuple(used)}), is_fresh


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
