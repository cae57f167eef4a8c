"""Who is next: waiting jobs in fair order, so that one key's thousand jobs do not keep another key's one waiting.

Each job gets a turn when it is made: one more than its key's last waiting job, and more than the queue has reached.
The lowest turn is picked first, so keys take turns (start-time fair queueing). A key that joins another key's job
brings the turn that a job of its own would get, when that is the better one; it counts among that key's turns then.
Interactive jobs go before batch jobs, except that each eighth pick looks at the batch first: it must not starve either.
Batches hold at most half of a worker's threads: a fetch can take minutes, and nobody who waits should wait for one of
those. Nor does one key begin more than half while another key's job waits; when none does, it may use every thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from django.conf import settings
from pymongo import ReturnDocument

from apps.core.clock import utcnow
from apps.downloads.documents import JobPriority, JobState, JobTurns, MediaJob

BATCH_EVERY = 8
_PICKS = "picks"
_picking = threading.Lock()
_running: Counter[str] = Counter()
"""How many fetches this process runs for each key. Changed under ``_picking``."""


class Pick(NamedTuple):
    """The job that is next. ``owner`` is the key whose turn it had."""

    job_id: str | None = None
    priority: JobPriority = JobPriority.INTERACTIVE
    owner: str = ""


def next_turn(key_prefix: str | None, priority: JobPriority) -> int:
    """The turn of a job that this key makes, or moves up, now. Two made at once may share one: that is harmless."""
    waiting = {"active": True, "priority": priority.value}
    own = {"$or": [{**waiting, "key_prefix": key_prefix}, {**waiting, "moved_up_by": key_prefix}]}
    reached = [{"$match": {"_id": priority.value}}, {"$project": {"turn": "$reached"}}]
    both = [
        *({"$match": own}, {"$sort": {"turn": -1}}, {"$limit": 1}, {"$project": {"turn": 1}}),
        {"$unionWith": {"coll": _turns().name, "pipeline": reached}},
    ]
    return 1 + max((int(found.get("turn") or 0) for found in _jobs().aggregate(both)), default=0)


@cache
def _batch_slots() -> threading.BoundedSemaphore:
    """How many of this process's fetches may be of batches: half its threads, the others stay free for people."""
    return threading.BoundedSemaphore(_half())


def _half() -> int:
    return max(1, int(settings.ENV.worker_threads) // 2)


@contextmanager
def next_job() -> Iterator[str | None]:
    """The job that this process should fetch now; its slot is held until the context ends. None when none may begin.

    A job of a batch that finds no free slot keeps waiting: whoever ends a fetch passes the turn on to it.
    """
    slots = _batch_slots()
    with _picking:
        has_slot = slots.acquire(blocking=False)
        needs_slot = False
        try:
            busy = {owner for owner, count in _running.items() if count >= _half()}
            picked = pick_job(batches=has_slot, behind=busy)
            needs_slot = picked.job_id is not None and picked.priority is JobPriority.BATCH
        finally:
            if has_slot and not needs_slot:
                slots.release()
        if picked.job_id is not None:
            _running[picked.owner] += 1
    try:
        yield picked.job_id
    finally:
        if picked.job_id is not None:
            _note_end(picked)
        if needs_slot:
            slots.release()


def _note_end(picked: Pick) -> None:
    with _picking:
        _running[picked.owner] -= 1
        if not _running[picked.owner]:
            del _running[picked.owner]


def pick_job(*, batches: bool = True, behind: Collection[str] = ()) -> Pick:
    """Take the job that is next in line; its id is None when none waits. ``batches``: those too. ``behind``: keys whose
    jobs are taken only when there are no others.

    One atomic update a job: of any number of workers one gets it. A worker that dies right then has its job found by
    the sweep.
    """
    count = _turns().find_one_and_update(
        {"_id": _PICKS}, {"$inc": {"picks": 1}}, upsert=True, return_document=ReturnDocument.AFTER
    )["picks"]
    order = [JobPriority.INTERACTIVE, *([JobPriority.BATCH] if batches else [])]
    if count % BATCH_EVERY == 0:
        order.reverse()
    for left_out in [behind, ()] if behind else [()]:
        for priority in order:
            if (picked := _pick(priority, left_out)) is not None:
                return picked
    return Pick()


def _pick(priority: JobPriority, left_out: Collection[str]) -> Pick | None:
    waiting = {
        "active": True,
        "state": JobState.QUEUED.value,
        "priority": priority.value if priority is JobPriority.BATCH else {"$in": [priority.value, None]},
        "$or": [{"not_before": None}, {"not_before": {"$lte": utcnow()}}],
    }
    if left_out:
        own = {"moved_up_by": None, "key_prefix": {"$nin": list(left_out)}}
        waiting["$and"] = [{"$or": [own, {"moved_up_by": {"$nin": [None, *left_out]}}]}]
    begun = {"state": JobState.RUNNING.value, "stage": "connecting", "updated_at": utcnow()}
    change = {"$set": begun, "$unset": {"unsent": ""}}
    line = [("turn", 1), ("created_at", 1)]
    picked = _jobs().find_one_and_update(waiting, change, {"turn": 1, "key_prefix": 1, "moved_up_by": 1}, sort=line)
    if picked is None:
        return None
    _turns().update_one({"_id": priority.value}, {"$max": {"reached": picked.get("turn") or 0}}, upsert=True)
    owner = picked.get("moved_up_by") or picked.get("key_prefix") or ""
    return Pick(str(picked["_id"]), priority, str(owner))


def _jobs() -> Any:
    return MediaJob._get_collection()


def _turns() -> Any:
    return JobTurns._get_collection()
