"""Picking up jobs whose worker died or whose message was lost. Everything here may run at any time, anywhere, twice."""

from __future__ import annotations

from datetime import timedelta

import structlog
from redis import RedisError

from apps.core.clock import utcnow
from apps.core.owners import is_owner_dead
from apps.core.redis import redis_client
from apps.core.tunables import max_active_jobs
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.selectors import count_active_jobs, running_jobs, unsent_jobs, waiting_jobs
from apps.downloads.services.claims import free_dead_lease
from apps.downloads.services.turns import send_fetch
from apps.telegram_cache.documents import Asset, AssetState

log = structlog.get_logger(__name__)

FETCH_QUEUE = "yt:celery:fetch"  # celery_config: global_keyprefix and the queue's name
LOST_AFTER_S = 15.0  # a queued job not touched for so long may have lost its message
BATCH_TURNS = 20  # at most, in one sweep: jobs of batches that wait without a message mostly wait for a free slot
UNSENT_AT_ONCE = 500


def sweep_jobs() -> int:
    """Send the task again of each active job that nobody works on. Returns how many were sent.

    A running job counts as abandoned when its lease has ended or its process is dead (seen at once on the same
    machine). A job that still waits is sent again only while the queue holds fewer messages than jobs wait.
    """
    running = running_jobs(limit=max_active_jobs())
    assets = {
        asset.id: asset
        for asset in Asset.objects(id__in=[job.asset_id for job in running]).exclude("block_sha256", "parts")
    }
    abandoned = [job for job in running if _is_abandoned(assets.get(job.asset_id))]
    waiting = count_active_jobs(limit=2 * max_active_jobs(), state=JobState.QUEUED)
    missing = max(0, waiting - _messages()) if waiting else 0
    lost_before = utcnow() - timedelta(seconds=LOST_AFTER_S)
    lost = waiting_jobs(untouched_since=lost_before, limit=missing, of_batches=False) if missing else []
    left = min(missing - len(lost), BATCH_TURNS)
    if left > 0:
        lost += waiting_jobs(untouched_since=lost_before, limit=left, of_batches=True)
    return sum(_send_again(job) for job in (*abandoned, *lost))


def send_unsent() -> int:
    """Send the tasks of jobs that were made by a process which does not reach Redis. Returns how many."""
    return sum(_send_again(job) for job in unsent_jobs(now=utcnow(), limit=UNSENT_AT_ONCE))


def _messages() -> int:
    try:
        return int(redis_client().llen(FETCH_QUEUE))
    except RedisError:
        return 2 * max_active_jobs()  # no broker, no use in sending


def _is_abandoned(asset: Asset | None) -> bool:
    if asset is None or asset.state != AssetState.FETCHING or asset.lease_until is None:
        return True
    if is_owner_dead(asset.lease_owner):
        free_dead_lease(asset)
        return True
    return bool(asset.lease_until <= utcnow())


def _send_again(job: MediaJob) -> bool:
    seen = {"id": job.id, "active": True, "state": job.state, "attempts": job.attempts, "updated_at": job.updated_at}
    if not MediaJob.objects(**seen).update_one(
        set__state=JobState.QUEUED.value, set__updated_at=utcnow(), unset__unsent=1
    ):
        return False  # it moved on, or another sweep was faster
    log.info("job sent again", job_id=job.id, asset_id=job.asset_id, attempts=job.attempts)
    send_fetch(job.id)
    return True
