"""Who is active right now over all nodes: written to ``concurrent_users``, with the peak of each minute.

The web processes say in Redis who they serve (``counting``); a worker compares that with MongoDB every few seconds and
writes only what changed, so that ten thousand people who stay cost ten thousand small writes a minute, in bulks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import DeleteMany, UpdateOne

from apps.analytics import counting
from apps.analytics.active_users import ACTIVE_S, Activity
from apps.analytics.documents import ConcurrentPeak, ConcurrentUser, Grain
from apps.analytics.periods import floor
from apps.core.redis import redis_client

EXPIRY_S = 120  # of a document that nobody touches any more
REWRITE_S = 60  # one that stays is written again when it has less left
MAX_USERS = 100_000
CHUNK = 2000
PEAKS_KEPT = timedelta(days=400)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most at once in one minute."""

    start: datetime
    users: int
    api: int
    stream: int
    websocket: int


def track_users(*, now: float | None = None) -> int:
    """Bring ``concurrent_users`` up to date and raise this minute's peak; return how many are active.

    Idempotent, and harmless twice at once. At most MAX_USERS are written one by one; the counts stay exact beyond it.
    ``now`` (UNIX seconds) replaces the clock in tests.
    """
    now = time.time() if now is None else now
    counts, active = _active(now)
    moment = datetime.fromtimestamp(now, UTC)
    _raise_peak(counts, moment)
    _tell_history(counts["users"], now)
    known = {
        row["_id"]: row
        for row in ConcurrentUser._get_collection().find({}, {"activities": 1, "expires_at": 1}).limit(2 * MAX_USERS)
    }
    changes: list[Any] = [
        _change(user, activities, moment)
        for user, activities in active.items()
        if _is_outdated(known.get(user), activities, moment)
    ]
    gone = [user for user in known if user not in active]
    changes += [DeleteMany({"_id": {"$in": gone[at : at + CHUNK]}}) for at in range(0, len(gone), CHUNK)]
    for at in range(0, len(changes), CHUNK):
        ConcurrentUser._get_collection().bulk_write(changes[at : at + CHUNK], ordered=False)
    return counts["users"]


def peaks(start: datetime, end: datetime) -> list[Peak]:
    """The peaks of the minutes in [start, end), oldest first. Minutes in which nobody was active are missing."""
    found = ConcurrentPeak.objects(id__gte=start, id__lt=end).order_by("id")
    return [
        Peak(start=each.id, users=each.users, api=each.api, stream=each.stream, websocket=each.websocket)
        for each in found
    ]


def _active(now: float) -> tuple[dict[str, int], dict[str, list[str]]]:
    """The counts, and the activities of each user (of MAX_USERS at most)."""
    pipeline = redis_client().pipeline(transaction=False)
    pipeline.zcount(counting.USERS, now - ACTIVE_S, "+inf")
    for kind in Activity:
        pipeline.zcount(counting.users_key(kind), now - ACTIVE_S, "+inf")
        pipeline.zrangebyscore(counting.users_key(kind), now - ACTIVE_S, "+inf", start=0, num=MAX_USERS)
    users, *rest = pipeline.execute()
    counts, active = {"users": int(users)}, dict[str, list[str]]()
    for kind, count, names in zip(Activity, rest[::2], rest[1::2], strict=True):
        counts[kind.value] = int(count)
        for name in names:
            active.setdefault(name.decode(), []).append(kind.value)
    return counts, active


def _is_outdated(row: dict[str, Any] | None, activities: list[str], now: datetime) -> bool:
    if row is None or row["activities"] != activities:
        return True
    left: timedelta = row["expires_at"] - now
    return left < timedelta(seconds=REWRITE_S)


def _change(user: str, activities: Iterable[str], now: datetime) -> UpdateOne:
    key_prefix, _, address_hash = user.partition(":")
    return UpdateOne(
        {"_id": user},
        {
            "$set": {"activities": list(activities), "expires_at": now + timedelta(seconds=EXPIRY_S)},
            "$setOnInsert": {"key_prefix": key_prefix, "address_hash": address_hash, "since": now},
        },
        upsert=True,
    )


def _raise_peak(counts: dict[str, int], now: datetime) -> None:
    if not counts["users"]:
        return
    minute = floor(now, Grain.MINUTE)
    ConcurrentPeak._get_collection().update_one(
        {"_id": minute}, {"$max": {**counts, "expires_at": minute + PEAKS_KEPT}}, upsert=True
    )


def _tell_history(users: int, now: float) -> None:
    """For the chart of the last hour."""
    name = counting.step_key(int(now) // counting.STEP_S)
    pipeline = redis_client().pipeline(transaction=False)
    pipeline.hset(name, "users", str(users))
    pipeline.expire(name, counting.STEP_KEPT_S)
    pipeline.execute()
