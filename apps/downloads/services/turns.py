"""Messages to the fetch workers: each is a turn for the job that is next in line."""

from __future__ import annotations

import structlog

from apps.core.queues import NotSent, send_task
from apps.downloads.documents import MediaJob
from apps.downloads.selectors import next_batch_job

FETCH_TASK = "apps.downloads.tasks.fetch_asset"

log = structlog.get_logger(__name__)


def send_fetch(job_id: str, *, delay_s: float = 0) -> None:
    """Send the task. When this process cannot, that is noted, and a worker sends it (``send_unsent``)."""
    try:
        send_task(FETCH_TASK, job_id, delay_s=delay_s)
    except NotSent as error:
        log.warning("task not sent", job_id=job_id, reason=str(error))
        MediaJob.objects(id=job_id, active=True).update_one(set__unsent=True)


def pass_turn_on() -> None:
    """A fetch has ended: a turn for a job of a batch, whose own turn may have come while no slot was free for it."""
    if (job := next_batch_job()) is not None:
        send_fetch(job.id)
