"""What the admin does with jobs, one at a time or many at once: cancel, try again. Each goes to the audit log."""

from __future__ import annotations

from apps.core.errors import Conflict
from apps.dashboard.access import AdminRequest, record_change
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.services.jobs import cancel_job, forget_wait, retry_job


def cancel(request: AdminRequest, job: MediaJob) -> None:
    """Stop a job for everybody who waits for it. Raises Conflict for one that has ended."""
    ended = cancel_job(job.id) if job.active else job
    if ended.state != JobState.CANCELLED or not job.active:
        raise Conflict(f"The job for {job.video_id} had ended already: {ended.state}.")
    before = {"state": job.state, "video_id": job.video_id, "variant": job.variant}
    record_change(
        request, "job.cancel", target_kind="job", target_id=job.id, before=before, after={"state": ended.state}
    )


def retry(request: AdminRequest, job: MediaJob) -> MediaJob:
    """Fetch again what failed or was cancelled. Raises Conflict for a job that did neither, and what the fetch raises.
    The wait after a failure is over: somebody who may have mended the reason asks."""
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(f"The job for {job.video_id} is {job.state}: there is nothing to try again.")
    forget_wait(job.asset_id)
    again = retry_job(job, key_prefix=job.key_prefix or "")
    record_change(
        request,
        "job.retry",
        target_kind="job",
        target_id=job.id,
        before={"state": job.state, "video_id": job.video_id, "variant": job.variant},
        after={"job": again.id},
    )
    return again
