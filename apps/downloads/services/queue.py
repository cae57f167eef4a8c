"""Who is next: waiting jobs in fair order, so that one key's thousand jobs do not keep another key's one waiting.

Each job gets a turn when it is made: one more than its key's last waiting job, and more than the queue has reached.
The lowest turn is picked first, so keys take turns (start-time fair queueing). A key that joins another key's job
brings the turn that a job of its own would get, when that is the better one; it counts among that key's turns then.
Interactive jobs go before batch jobs, except that each eighth pick looks at the batch first: it must not starve either.
Batches hold at most half of a worker's threads: a fetch can take minutes, and nobody who waits should wait for one of
those.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.conf import settings
from pymongo import ReturnDocument

from apps.core.clock import utcnow
from apps.downloads.documents import JobPriority, JobState, JobTurns, MediaJob

BATCH_EVERY = 8
_PICKS = "picks"
_picking = threading.Lock()


def next_turn(key_prefix: str | None, priority: JobPriority) -> int:
    """The turn of a job that this key makes, or moves up, now. Two made at once may share one: that is harmless."""
    waiting = {"active": True, "priority": priority.value}
    own = {"$or": [{**waiting, "key_prefix": key_prefix}, {**waiting, "moved_up_by": key_prefix}]}
    last = MediaJob.objects(__raw__=own).order_by("-turn").only("turn").first()
    reached = JobTurns.objects(priority=priority.value).first()
    return max(int(last.turn or 0) if last else 0, int(reached.reached) if reached else 0) + 1


@cache
def _batch_slots() -> threading.BoundedSemaphore:
    """How many of this process's fetches may be of batches: half its threads, the others stay free for people."""
    return threading.BoundedSemaphore(max(1, settings.ENV.worker_threads // 2))


@contextmanager
def next_job() -> Iterator[str | None]:
    """The job that this process should fetch now; its slot is held until the context ends. None when none may begin.

    A job of a batch that finds no free slot keeps waiting: whoever ends a fetch passes the turn on to it.
    """
    slots = _batch_slots()
    with _picking:
        has_slot = slots.acquire(blocking=False)
        job_id, priority = pick_job(batches=has_slot)
        needs_slot = job_id is not None and priority is JobPriority.BATCH
        if has_slot and not needs_slot:
            slots.release()
    try:
        yield job_id
    finally:
        if needs_slot:
            slots.release()


def pick_job(*, batches: bool = True) -> tuple[str | None, JobPriority]:
    """Take the job that is next in line: its id and priority, or None when none waits. ``batches``: those too.

    One atomic update a job: of any number of workers one gets it. A worker that dies right then has its job found by
    the sweep.
    """
    count = _turns().find_one_and_update(
        {"_id": _PICKS}, {"$inc": {"picks": 1}}, upsert=True, return_document=ReturnDocument.AFTER
    )["picks"]
    order = [JobPriority.INTERACTIVE, *([JobPriority.BATCH] if batches else [])]
    if count % BATCH_EVERY == 0:
        order.reverse()
    for priority in order:
        if (job_id := _pick(priority)) is not None:
            return job_id, priority
    return None, JobPriority.INTERACTIVE


def _pick(priority: JobPriority) -> str | None:
    waiting = {
        "active": True,
        "state": JobState.QUEUED.value,
        "priority": priority.value if priority is JobPriority.BATCH else {"$in": [priority.value, None]},
        "$or": [{"not_before": None}, {"not_before": {"$lte": utcnow()}}],
    }
    change = {"$set": {"state": JobState.RUNNING.value, "stage": "connecting", "updated_at": utcnow()}}
    line = [("turn", 1), ("created_at", 1)]
    picked = _jobs().find_one_and_update(waiting, change, {"turn": 1}, sort=line)
    if picked is None:
        return None
    _turns().update_one({"_id": priority.value}, {"$max": {"reached": picked.get("turn") or 0}}, upsert=True)
    return str(picked["_id"])


def _jobs() -> Any:
    return MediaJob._get_collection()


def _turns() -> Any:
    return JobTurns._get_collection()
