"""Reads of warm-ups."""

from __future__ import annotations

import time
from datetime import datetime
from typing import cast

from apps.downloads.warm_documents import WarmEntryState, WarmState, WarmUp, WarmUpEntry

RECENT_S = 5.0
FEW = 500
_recent: dict[str, tuple[float, dict[str, int]]] = {}


def find_warm_up(warm_up_id: str) -> WarmUp | None:
    return cast("WarmUp | None", WarmUp.objects(id=warm_up_id).first())


def running_warm_ups() -> list[WarmUp]:
    """Those that are neither paused nor over, oldest first."""
    return list(WarmUp.objects(state=WarmState.RUNNING.value).order_by("created_at"))


def warm_counts(warm_up_ids: list[str]) -> dict[str, dict[str, int]]:
    """How many entries of each warm-up are in each state. Those of one that is over are kept with it; the others are
    counted, an index key for each entry."""
    over = WarmUp.objects(id__in=warm_up_ids, counts__exists=True).only("counts")
    kept = {warm_up.id: warm_up.counts for warm_up in over if warm_up.counts}
    changing = [warm_up_id for warm_up_id in warm_up_ids if warm_up_id not in kept]
    counts = {warm_up_id: dict.fromkeys([state.value for state in WarmEntryState], 0) for warm_up_id in warm_up_ids}
    for warm_up_id, of_one in kept.items():
        counts[warm_up_id].update(of_one)
    pipeline = [
        {"$match": {"warm_up_id": {"$in": changing}}},
        {"$group": {"_id": {"warm_up": "$warm_up_id", "state": "$state"}, "count": {"$sum": 1}}},
    ]
    for row in WarmUpEntry._get_collection().aggregate(pipeline) if changing else ():
        counts[row["_id"]["warm_up"]][row["_id"]["state"]] = row["count"]
    return counts


def recent_warm_counts(warm_up_ids: list[str]) -> dict[str, dict[str, int]]:
    """``warm_counts`` for pages that are asked again and again: of a warm-up with more than FEW entries as of the last
    RECENT_S."""
    now = time.monotonic()
    recent = {name: _recent[name][1] for name in warm_up_ids if name in _recent and now - _recent[name][0] < RECENT_S}
    counted = warm_counts([name for name in warm_up_ids if name not in recent])
    for name, counts in counted.items():
        if sum(counts.values()) > FEW:
            _recent[name] = (now, counts)
    for name in [name for name, (at, _) in list(_recent.items()) if now - at >= RECENT_S]:
        _recent.pop(name, None)
    return {name: dict(recent.get(name) or counted[name]) for name in warm_up_ids}


def fetching_entries(warm_up_id: str | None = None) -> list[WarmUpEntry]:
    """What is being fetched, of one warm-up or of all."""
    fetching = WarmUpEntry.objects(state=WarmEntryState.FETCHING.value)
    return list(fetching.filter(warm_up_id=warm_up_id) if warm_up_id else fetching)


def waiting_entries(warm_up_id: str, *, now: datetime, limit: int) -> list[WarmUpEntry]:
    """What may be begun now: first what is to be tried again by now, then the others, in the order of the list."""
    waiting = WarmUpEntry.objects(warm_up_id=warm_up_id, state=WarmEntryState.WAITING.value)
    again = list(waiting.filter(not_before__lte=now).order_by("not_before", "number").limit(limit))
    if len(again) == limit:
        return again
    return again + list(waiting.filter(not_before=None).order_by("number").limit(limit - len(again)))


def has_open_entries(warm_up_id: str) -> bool:
    """Whether something of it waits or is being fetched."""
    states = [WarmEntryState.WAITING.value, WarmEntryState.FETCHING.value]
    return WarmUpEntry.objects(warm_up_id=warm_up_id, state__in=states).only("id").first() is not None


def is_fetched_elsewhere(entry: WarmUpEntry) -> bool:
    """Whether another warm-up waits for the same job."""
    same = WarmUpEntry.objects(job_id=entry.job_id, state=WarmEntryState.FETCHING.value, id__ne=entry.id)
    return same.only("id").first() is not None


def count_started(*, since: datetime) -> int:
    """How many fetches warm-ups have begun since then."""
    return int(WarmUpEntry.objects(started_at__gte=since).count())


def bytes_fetched(*, since: datetime) -> int:
    """The size of what warm-ups have begun to fetch since then, as far as it is there."""
    return int(WarmUpEntry.objects(started_at__gte=since).sum("size_bytes"))


def list_warm_ups(*, skip: int, limit: int) -> tuple[list[WarmUp], int]:
    """A page of them, newest first, and how many there are."""
    found = WarmUp.objects.order_by("-created_at", "-id")
    return list(found.skip(skip).limit(limit)), int(found.count())


def failed_entries(warm_up_id: str, *, limit: int) -> list[WarmUpEntry]:
    """What could not be fetched, in the order of the list."""
    failed = WarmUpEntry.objects(warm_up_id=warm_up_id, state=WarmEntryState.FAILED.value)
    return list(failed.order_by("number").limit(limit))
