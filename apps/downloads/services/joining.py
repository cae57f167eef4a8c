"""Waiting for a job that somebody else asked for first: whose turn it gets, and who is noted as waiting."""

from __future__ import annotations

from typing import Any

from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.services.queue import next_turn
from apps.downloads.services.turns import send_fetch

MAX_JOINED = 1000


def move_up(job: MediaJob, *, key_prefix: str) -> None:
    """This key waits now for a job: it goes before those of batches, and gets the better of two turns, its own and that
    of a job that the key would make now. The turn counts as the key's from then on. One conditional update; idempotent.
    """
    of_batch = job.priority == JobPriority.BATCH
    if job.state != JobState.QUEUED or (not of_batch and key_prefix in (job.key_prefix, job.moved_up_by)):
        return
    first = JobPriority.INTERACTIVE
    turn = next_turn(key_prefix, first)
    waiting: dict[str, Any] = {"_id": job.id, "active": True, "state": JobState.QUEUED.value}
    waiting |= {"priority": JobPriority.BATCH.value} if of_batch else {"turn": {"$gt": turn}}
    change = {"$set": {"priority": first.value, "turn": turn, "moved_up_by": key_prefix}}
    if _jobs().update_one(waiting, change).matched_count and of_batch:
        send_fetch(job.id)  # its own turn may have come while no slot was free for batches


def note_joined(job: MediaJob, *, key_prefix: str, priority: JobPriority = JobPriority.INTERACTIVE) -> bool:
    """Remember that this key waits for the job (too), and so may see it. Idempotent; at most MAX_JOINED keys.

    False when the job has ended meanwhile: then there is nothing to wait for.
    """
    active: dict[str, Any] = {"_id": job.id, "active": True}
    added: dict[str, str] = {}
    if priority is JobPriority.INTERACTIVE and key_prefix not in job.asked_by:
        added["asked_by"] = key_prefix
    if key_prefix not in (job.key_prefix, *job.joined_by):
        added["joined_by"] = key_prefix
        active[f"joined_by.{MAX_JOINED - 1}"] = {"$exists": False}
    if not added and key_prefix not in (*job.left_by, *job.too_large_for):
        return True
    change = {"$pull": {"left_by": key_prefix, "too_large_for": key_prefix}, **({"$addToSet": added} if added else {})}
    if _jobs().update_one(active, change).matched_count:
        return True
    return _jobs().find_one({"_id": job.id, "active": True}, {"_id": 1}) is not None


def _jobs() -> Any:
    return MediaJob._get_collection()
