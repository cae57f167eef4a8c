"""How full the cache is, how often it saves a fetch, and what it is used for most."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import RedisError

from apps.core.redis import redis_client
from apps.downloads.services.media import MediaState, Tier
from apps.telegram_cache.selectors import cache_totals
from apps.telegram_cache.services import touch_asset

logger = logging.getLogger(__name__)

TIER_COUNTS = "yt:tiers"
MOST_USED = 10
POLLED_KEPT_S = 600


def count_answer(state: MediaState, tier: Tier) -> None:
    """Count one media answer: by ``tier``, where its bytes come from (EXTERNAL also when it has waited for the fetch),
    and as a use of the asset (eviction goes by that).
    """
    try:
        redis_client().hincrby(TIER_COUNTS, tier.value, 1)
    except RedisError as error:  # an answer is worth more than its count
        logger.warning("an answer was not counted: %s", type(error).__name__)
    touch_asset(state.asset.id)


def note_polled(state: MediaState, *, key_prefix: str) -> None:
    """Remember that somebody was told to ask again for this file: the answer with the file is then no hit."""
    try:
        redis_client().set(_polled_name(state, key_prefix), 1, ex=POLLED_KEPT_S)
    except RedisError as error:
        logger.warning("a poll was not noted: %s", type(error).__name__)


def count_polled_answer(state: MediaState, *, key_prefix: str) -> None:
    """``count_answer`` where callers ask again and again: as EXTERNAL after ``note_polled``."""
    try:
        polled = bool(redis_client().delete(_polled_name(state, key_prefix)))
    except RedisError:
        polled = False
    count_answer(state, Tier.EXTERNAL if polled else state.tier)


def _polled_name(state: MediaState, key_prefix: str) -> str:
    return f"yt:polled:{key_prefix}:{state.asset.id}"


def cache_stats() -> dict[str, Any]:
    """Totals of stored files by kind, answers by tier since the counters were made, and the most used files."""
    totals = cache_totals(most_used=MOST_USED)
    kinds = {
        of_kind.kind: {
            "files": of_kind.count,
            "size_bytes": of_kind.size_bytes,
            "in_telegram": of_kind.in_telegram,
        }
        for of_kind in totals.by_kind
    }
    most_used = [
        {
            "video_id": asset.video_id,
            "title": asset.title,
            "file_type": asset.kind,
            "quality": asset.variant,
            "file_size": asset.size_bytes,
            "access_count": asset.access_count,
        }
        for asset in totals.most_used
    ]
    return {
        "total_files": totals.count,
        "total_size_bytes": totals.size_bytes,
        **kinds,
        "hits": _hits(),
        "most_used": most_used,
    }


def _hits() -> dict[str, Any]:
    stored: Any = redis_client().hgetall(TIER_COUNTS)
    counts = {tier.value: int(stored.get(tier.value.encode(), 0)) for tier in Tier}
    total = sum(counts.values())
    ratio = round(1 - counts[Tier.EXTERNAL] / total, 4) if total else None
    return {**counts, "ratio": ratio}
