"""How much was asked lately, from ``usage_stats``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.analytics.documents import UsageEvent

MAX_TIME_MS = 5_000
MINUTES = 60


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """The last 60 minutes, one entry each, oldest first. ``starts`` are UTC."""

    starts: list[datetime]
    answered: list[int]  # status below 400
    refused: list[int]  # 4xx: the caller's fault, clients that left included
    failed: list[int]  # 5xx

    @property
    def total(self) -> int:
        return sum(self.answered) + sum(self.refused) + sum(self.failed)

    @property
    def failed_percent(self) -> float:
        return 100 * sum(self.failed) / self.total if self.total else 0.0


@dataclass(frozen=True, kw_only=True)
class KeyUsage:
    """What a key did in the last 24 hours."""

    requests: int = 0
    errors: int = 0
    bytes_sent: int = 0


def last_hour(*, now: datetime | None = None) -> Minutes:
    """Requests per minute. One indexed range; minutes without requests are zeros."""
    this_minute = (now or datetime.now(UTC)).replace(second=0, microsecond=0)
    starts = [this_minute - timedelta(minutes=MINUTES - 1 - index) for index in range(MINUTES)]
    rows = UsageEvent._get_collection().aggregate(
        [
            {"$match": {"at": {"$gte": starts[0]}}},
            {
                "$group": {
                    "_id": {"$dateTrunc": {"date": "$at", "unit": "minute"}},
                    "all": {"$sum": 1},
                    "refused": _count_between(400, 500),
                    "failed": _count_between(500, 1000),
                }
            },
        ],
        maxTimeMS=MAX_TIME_MS,
    )
    by_minute: dict[datetime, dict[str, Any]] = {row["_id"].replace(tzinfo=UTC): row for row in rows}
    none = {"all": 0, "refused": 0, "failed": 0}
    found = [by_minute.get(start, none) for start in starts]
    return Minutes(
        starts=starts,
        answered=[row["all"] - row["refused"] - row["failed"] for row in found],
        refused=[row["refused"] for row in found],
        failed=[row["failed"] for row in found],
    )


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
