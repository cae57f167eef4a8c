"""The cache's totals for whoever asks often: counting looks at every asset, so one answer serves everybody a while."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from functools import cache
from math import inf
from typing import Any, cast

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from apps.core.redis import redis_client
from apps.telegram_cache.selectors import CacheTotals, StateTotals, UsedAsset, cache_totals

RENEW_S = 10.0  # from then on it is counted anew behind those who ask,
RENEW_SHARE = 30  # and not before so many times as long as the last count took: counting never keeps MongoDB busy
FRESH_S = 30.0  # older (or three times as old as is counted anew), which nobody asked for in between, is not given
KEPT_S = 3600  # while somebody counts anew, the others get the answer before
COUNTING_S = 60  # longer than a count takes; who dies counting keeps the others from it no longer
FIRST_WAIT_S = 5.0  # for the very first answer; then each counts for itself
POLL_S = 0.05
MOST_USED = 10
KEY = "yt:tg:totals:3"  # the number changes with the shape
LOCK = f"{KEY}:counting"

logger = logging.getLogger(__name__)
_renewing = threading.Semaphore(1)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache-totals")


def recent_totals() -> CacheTotals:
    """``cache_totals`` as of the last 30 s (or 90 times as long as a count takes); of any number of callers in all
    processes one counts.

    While people keep asking it is counted behind them: nobody waits. While somebody counts anew what is older, which
    takes a second or two with a million assets, the others get the totals before. Raises RedisError.
    """
    wait_until = time.monotonic() + FIRST_WAIT_S
    while True:
        totals, age_s, renew_s = _kept()
        if totals is not None and age_s < max(FRESH_S, 3 * renew_s):
            if age_s >= renew_s and _renewing.acquire(blocking=False):
                _thread().submit(_renew)
            return totals
        if (counted := _count_if_older(max(FRESH_S, 3 * renew_s))) is not None:
            return counted
        if totals is not None:
            return totals
        if time.monotonic() > wait_until:
            return _count()
        time.sleep(POLL_S)


def _renew() -> None:
    try:
        _count_if_older(_kept()[2])
    except (RedisError, PyMongoError) as error:
        logger.warning("the cache's totals were not counted: %s", type(error).__name__)
    finally:
        _renewing.release()


def _count_if_older(age_s: float) -> CacheTotals | None:
    """Count, unless somebody did meanwhile. None: somebody else is counting."""
    if not redis_client().set(LOCK, b"1", nx=True, ex=COUNTING_S):
        return None
    try:
        totals, is_s, _ = _kept()
        return totals if totals is not None and is_s < age_s else _count()
    finally:
        redis_client().delete(LOCK)


def _count() -> CacheTotals:
    began_at = time.monotonic()
    totals = cache_totals(most_used=MOST_USED)
    took_s = time.monotonic() - began_at
    packed = json.dumps({"made_at": time.time(), "took_s": took_s, "totals": asdict(totals)}, default=_plain)
    redis_client().set(KEY, packed, ex=KEPT_S)
    return totals


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _kept() -> tuple[CacheTotals | None, float, float]:
    """The last answer, how many seconds old it is, and from which age on it is counted anew."""
    packed = cast("bytes | None", redis_client().get(KEY))
    if packed is None:
        return None, inf, RENEW_S
    kept = json.loads(packed)
    totals = kept["totals"]
    used = [UsedAsset(**{**row, "last_accessed_at": _moment(row["last_accessed_at"])}) for row in totals["most_used"]]
    states = tuple(StateTotals(**row) for row in totals["states"])
    age_s = time.time() - kept["made_at"]
    renew_s = max(RENEW_S, RENEW_SHARE * kept["took_s"])
    return CacheTotals(**{**totals, "states": states, "most_used": tuple(used)}), age_s if age_s >= 0 else inf, renew_s


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
