"""A fetch that failed for a passing reason goes back in line by itself, after a while, a bounded number of times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog

from apps.core.clock import utcnow
from apps.core.errors import ApiError, BotCheck, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from apps.core.wake import publish
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.errors import EarlierFetch, NoRoom
from apps.downloads.selectors import active_job
from apps.downloads.services.claims import Claim, release_claim
from apps.downloads.services.turns import send_fetch
from apps.telegram_cache.documents import AssetState
from apps.telegram_cache.services.generations import cancel_queued

PASSING = (UpstreamError, UpstreamUnreachable, UpstreamTimeout, BotCheck)
LONGEST_WAIT_S = 30.0

log = structlog.get_logger(__name__)


def retry_delay_s(
    job: MediaJob, error: ApiError, delays_s: Sequence[float], *, room_delays_s: Sequence[float] = ()
) -> float | None:
    """How long to wait before the next try; None when there is none: the error lasts, or it was tried often enough.

    A source that asks for a longer time than LONGEST_WAIT_S is not waited for: callers hear the error. ``NoRoom`` has
    its own, longer patience, ``room_delays_s``.
    """
    if isinstance(error, NoRoom):
        return next(iter(room_delays_s[job.room_waits or 0 :]), None)
    failures = job.failures or 0
    if not isinstance(error, PASSING) or failures >= len(delays_s):
        return None
    delay_s = max(delays_s[failures], error.retry_after_s or 0.0)
    return delay_s if delay_s <= LONGEST_WAIT_S else None


def raise_if_no_room(job: MediaJob) -> None:
    """Raises NoRoom for a job that waits for room on the disk and found none again after files were evicted for it.

    The job stays in line: ``retry_after_s`` says when it tries again.
    """
    if job.state == JobState.QUEUED and (job.full_in_a_row or 0) > 1 and job.error_code == NoRoom.code:
        left_s = (job.retry_at - utcnow()).total_seconds() if job.retry_at else 0.0
        raise NoRoom(job.error_message or "", retry_after_s=max(1.0, left_s))


def postpone_job(job: MediaJob, claim: Claim, error: ApiError, *, delay_s: float) -> bool:
    """Put a running job back in line, with the reason and the time of the next try on it. Gives the asset back.

    False when the job is no longer active: somebody cancelled it. A worker that dies half-way leaves a job that the
    sweep finds.
    """
    release_claim(claim, state=AssetState.QUEUED)
    is_full = isinstance(error, NoRoom) and not isinstance(error, EarlierFetch)
    retry_at = utcnow() + timedelta(seconds=delay_s)
    change = {
        "$set": {
            "state": JobState.QUEUED.value,
            "stage": "queued",
            "not_before": retry_at,
            "retry_at": retry_at,
            "error_code": error.code,
            "error_message": error.message,
            "speed_bytes_per_s": None,
            "eta_s": None,
            "in_attempt": False,
            "full_in_a_row": (job.full_in_a_row or 0) + 1 if is_full else 0,
            "needs_free_bytes": error.needs_free_bytes if isinstance(error, NoRoom) else None,
            "updated_at": utcnow(),
        },
        "$inc": {"room_waits" if isinstance(error, NoRoom) else "failures": 1},
    }
    running = {"_id": job.id, "active": True, "state": JobState.RUNNING.value}
    if not _jobs().update_one(running, change).matched_count:
        if active_job(job.asset_id) is None:
            cancel_queued(job.asset_id)  # the cancel came while this fetch held the asset, and left it alone
        return False
    log.info("fetch is tried again later", job_id=job.id, error=error.code, delay_s=round(delay_s, 1))
    publish(f"asset:{job.asset_id}")
    send_fetch(job.id, delay_s=delay_s)
    return True


def _jobs() -> Any:
    return MediaJob._get_collection()
