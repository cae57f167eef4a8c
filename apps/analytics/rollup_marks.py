"""Which sums are out of date, and who may compute them. All in MongoDB, each step one conditional update."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from apps.analytics.documents import Grain, RollupLease, RollupMark
from apps.analytics.periods import floor
from apps.core.clock import utcnow
from apps.core.errors import Conflict

LEASE = "rollups"
LEASE_S = 180
MAX_MARKS = 5000


@dataclass(frozen=True, kw_only=True)
class Mark:
    grain: Grain
    start: datetime
    revision: int


def mark_minutes(moments: Iterable[datetime]) -> None:
    """Say that the minutes of these moments have new events. Idempotent in effect: a second time only costs work."""
    mark(Grain.MINUTE, {floor(moment, Grain.MINUTE) for moment in moments})


def mark(grain: Grain, starts: Iterable[datetime]) -> None:
    """Say that the sums which start there are out of date."""
    now = utcnow()
    changes = [
        UpdateOne(
            {"_id": f"{grain.value}:{int(start.timestamp())}"},
            {"$inc": {"revision": 1}, "$setOnInsert": {"grain": grain.value, "start": start, "since": now}},
            upsert=True,
        )
        for start in starts
    ]
    if changes:
        RollupMark._get_collection().bulk_write(changes, ordered=False)


def marks(grain: Grain, *, older_than_s: float) -> list[Mark]:
    """The marks of a grain that are at least so old, oldest first; MAX_MARKS at most."""
    found = RollupMark.objects(grain=grain.value, since__lte=utcnow() - timedelta(seconds=older_than_s))
    return [
        Mark(grain=grain, start=each.start, revision=each.revision) for each in found.order_by("since").limit(MAX_MARKS)
    ]


def unmark(done: Iterable[Mark]) -> None:
    """Take marks away, except those that were set again since they were read."""
    collection = RollupMark._get_collection()
    for each in done:
        collection.delete_one({"_id": f"{each.grain.value}:{int(each.start.timestamp())}", "revision": each.revision})


def postpone(each: Mark) -> None:
    """Let a mark wait from now on as if it were new, unless it was set again since it was read."""
    RollupMark._get_collection().update_one(
        {"_id": f"{each.grain.value}:{int(each.start.timestamp())}", "revision": each.revision},
        {"$set": {"since": utcnow()}},
    )


class Lease:
    """The right to compute sums, for LEASE_S seconds from the last ``extend``."""

    def __init__(self, owner: str) -> None:
        self._mine = {"_id": LEASE, "owner": owner}

    def extend(self) -> None:
        """Raises Conflict when it ran out and somebody else has it now."""
        until = utcnow() + timedelta(seconds=LEASE_S)
        if not RollupLease._get_collection().update_one(self._mine, {"$set": {"until": until}}).matched_count:
            raise Conflict("This took so long that somebody else computes sums now. Try again in a minute.")

    def give_back(self) -> None:
        RollupLease._get_collection().delete_one(self._mine)


@contextmanager
def rollup_lease() -> Iterator[Lease | None]:
    """The right to compute sums, which nobody else has until the block ends or it runs out; None: somebody has it.

    One conditional upsert: with a lease that runs, the insert meets the unique ``_id``.
    """
    collection, owner, now = RollupLease._get_collection(), secrets.token_hex(8), utcnow()
    try:
        collection.update_one(
            {"_id": LEASE, "until": {"$lte": now}},
            {"$set": {"owner": owner, "until": now + timedelta(seconds=LEASE_S)}},
            upsert=True,
        )
    except DuplicateKeyError:
        yield None
        return
    lease = Lease(owner)
    try:
        yield lease
    finally:
        lease.give_back()
