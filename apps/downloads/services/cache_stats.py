"""How full the cache is, how often it saves a fetch, and what it is used for most."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from apps.core.redis import redis_client
from apps.downloads.quality import measured_quality
from apps.downloads.services.media import MediaState, Tier
from apps.telegram_cache.services import touch_asset, touch_assets
from apps.telegram_cache.services.totals import recent_totals

logger = logging.getLogger(__name__)

TIER_COUNTS = "yt:tiers"
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


class Answered(NamedTuple):
    """One media answer, as it counts. ``polled``: it may be the last of several (``count_polled_answer``)."""

    asset_id: str
    tier: Tier
    key_prefix: str
    polled: bool


def count_answers(answers: Mapping[Answered, int]) -> Mapping[Answered, int]:
    """Count many media answers at once, as ``count_answer`` and ``count_polled_answer`` do one by one.

    Returns those that MongoDB refused to count, which may be tried again. Raises what MongoDB raises, before anything
    is counted.
    """
    uses: Counter[str] = Counter()
    for answered, count in answers.items():
        uses[answered.asset_id] += count
    refused = touch_assets(uses)
    taken = {answered: count for answered, count in answers.items() if answered.asset_id not in refused}
    _count_tiers(taken)
    return {answered: count for answered, count in answers.items() if answered not in taken}


def _count_tiers(answers: Mapping[Answered, int]) -> None:
    polled = [answered for answered in answers if answered.polled]
    try:
        with redis_client().pipeline(transaction=False) as pipeline:
            for answered in polled:
                pipeline.delete(_polled_name(answered.asset_id, answered.key_prefix))
            was_told_to_wait = dict(zip(polled, pipeline.execute(), strict=True))
        tiers: Counter[Tier] = Counter()
        for answered, count in answers.items():
            first = min(1, was_told_to_wait.get(answered, 0))
            tiers[answered.tier] += count - first
            tiers[Tier.EXTERNAL] += first
        with redis_client().pipeline(transaction=False) as pipeline:
            for tier, count in tiers.items():
                if count:
                    pipeline.hincrby(TIER_COUNTS, tier.value, count)
            pipeline.execute()
    except Exception as error:  # after the uses were counted: raised, it would have them counted again
        reason = None if isinstance(error, RedisError) else error
        logger.warning("answers were not counted by tier: %s", type(error).__name__, exc_info=reason)


def note_polled(state: MediaState, *, key_prefix: str) -> None:
    """Remember that somebody was told to ask again for this file: the answer with the file is then no hit."""
    try:
        redis_client().set(_polled_name(state.asset.id, key_prefix), 1, ex=POLLED_KEPT_S)
    except RedisError as error:
        logger.warning("a poll was not noted: %s", type(error).__name__)


def count_polled_answer(state: MediaState, *, key_prefix: str) -> None:
    """``count_answer`` where callers ask again and again: as EXTERNAL after ``note_polled``."""
    try:
        polled = bool(redis_client().delete(_polled_name(state.asset.id, key_prefix)))
    except RedisError:
        polled = False
    count_answer(state, Tier.EXTERNAL if polled else state.tier)


def _polled_name(asset_id: str, key_prefix: str) -> str:
    return f"yt:polled:{key_prefix}:{asset_id}"


def cache_stats() -> dict[str, Any]:
    """Totals of stored files by kind and the most used files (as of ``recent_totals``), answers by tier since the
    counters were made.
    """
    totals = recent_totals()
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
            "measured_quality": measured_quality(asset.variant, width=asset.width, height=asset.height, fps=asset.fps),
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
