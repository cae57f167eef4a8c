"""Messages to the fetch workers: each is a turn for the job that is next in line."""

from __future__ import annotations

import structlog
from celery import current_app
from kombu.exceptions import OperationalError

from apps.downloads.selectors import next_batch_job

FETCH_TASK = "apps.downloads.tasks.fetch_asset"
SEND_ONCE = {"max_retries": 1, "interval_start": 0.1}

log = structlog.get_logger(__name__)


def send_fetch(job_id: str, *, delay_s: float = 0) -> None:
    """Send the task. When the broker cannot take it, the job waits and ``sweep_jobs`` sends it later."""
    try:
        current_app.send_task(FETCH_TASK, [job_id], countdown=delay_s or None, retry_policy=SEND_ONCE)
    except OperationalError as error:
        log.warning("task not sent", job_id=job_id, reason=type(error).__name__)


def pass_turn_on() -> None:
    """A fetch has ended: a turn for a job of a batch, whose own turn may have come while no slot was free for it."""
    if (job := next_batch_job()) is not None:
        send_fetch(job.id)
