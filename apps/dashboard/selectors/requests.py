"""How much was asked lately, from ``usage_stats``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.analytics.documents import UsageEvent

MAX_TIME_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class KeyUsage:
    """What a key did in the last 24 hours."""

    requests: int = 0
    errors: int = 0
    bytes_sent: int = 0


def key_usage(prefix: str) -> KeyUsage:
    """What one key did since yesterday at this time."""
    since = datetime.now(UTC) - timedelta(days=1)
    rows = UsageEvent._get_collection().aggregate(
        [
            {"$match": {"key_prefix": prefix, "at": {"$gte": since}}},
            {
                "$group": {
                    "_id": None,
                    "requests": {"$sum": 1},
                    "errors": _count_between(400, 1000),
                    "bytes_sent": {"$sum": "$bytes_sent"},
                }
            },
            {"$project": {"_id": 0}},
        ],
        maxTimeMS=MAX_TIME_MS,
    )
    return KeyUsage(**next(iter(rows), {}))


def _count_between(first: int, end: int) -> dict[str, Any]:
    return {
        "$sum": {"$cond": [{"$and": [{"$gte": ["$status", first]}, {"$lt": ["$status", end]}]}, 1, 0]},
    }
