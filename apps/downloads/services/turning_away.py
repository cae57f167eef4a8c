"""A file whose size nobody knew turns out to be larger than a key may have: that key waits no longer, others go on."""

from __future__ import annotations

from apps.core.errors import FileTooLarge
from apps.core.wake import publish
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.selectors import find_job
from apps.downloads.services.jobs import fail_if_nobody_waits
from apps.downloads.services.key_limits import is_too_large
from apps.downloads.services.webhook_records import announce_end
from apps.keys.job_slots import free_job_slots


def turn_away(job_id: str, *, size_bytes: int) -> None:
    """End the waiting of every key that may not have a file of (at least) ``size_bytes``.

    Each is told by its webhook, and sees the job as failed. The job itself fails, so that its fetch stops, only when
    nobody else waits for it. Idempotent.
    """
    job = find_job(job_id)
    if job is None or not job.active:
        return
    refused = {prefix for prefix in job.waited_for_by if is_too_large(prefix, size_bytes)}
    if not refused:
        return
    waiting = MediaJob.objects(id=job_id, active=True)
    waiting.update_one(add_to_set__too_large_for=sorted(refused), pull_all__asked_by=sorted(refused))
    fail_if_nobody_waits(job_id, FileTooLarge())
    free_job_slots(refused, job.asset_id)
    announce_end(job, to=refused)
    publish(f"asset:{job.asset_id}")


def as_seen_by(job: MediaJob, prefix: str) -> MediaJob:
    """The job as it is for this key: failed, for one that was turned away, whatever it is for others."""
    if prefix in job.too_large_for:
        job.state, job.active = JobState.FAILED.value, False
        job.error_code, job.error_message = FileTooLarge.code, FileTooLarge.default_message
    return job
