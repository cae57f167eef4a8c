"""How a batch stands: each entry's state, file and error."""

from __future__ import annotations

from collections import Counter
from typing import Any

from apps.core.errors import error_from_code
from apps.downloads.documents import Batch, JobState, MediaJob
from apps.downloads.selectors import jobs_by_id
from apps.downloads.services.answers import iso_utc, job_summary, media_answer
from apps.downloads.services.media import MediaState, Tier
from apps.telegram_cache.selectors import find_assets

FILE_FIELDS = ("title", "duration_seconds", "quality", "container", "file_size", "download_url", "stream_url")


def batch_answer(batch: Batch, *, base_url: str, key_prefix: str, bound_to: str = "") -> dict[str, Any]:
    """The whole batch. Links are signed for ``key_prefix``, and work also while a file is being fetched."""
    jobs = jobs_by_id([entry["job_id"] for entry in batch.entries if entry.get("job_id")])
    assets = find_assets([entry["asset_id"] for entry in batch.entries if entry.get("asset_id")])
    entries = []
    for entry in batch.entries:
        job, asset = jobs.get(entry.get("job_id") or ""), assets.get(entry.get("asset_id") or "")
        state = MediaState(asset=asset, tier=Tier.EXTERNAL, job=job) if asset else None
        entries.append(_entry_answer(entry, state, job, base_url=base_url, key_prefix=key_prefix, bound_to=bound_to))
    counts = Counter(entry["state"] for entry in entries)
    is_running = bool(counts[JobState.QUEUED] or counts[JobState.RUNNING])
    ended = "cancelled" if batch.cancelled_at else "done"
    return {
        **batch_summary(batch),
        "state": "running" if is_running else ended,
        "counts": {state.value: counts[state.value] for state in JobState},
        "truncated": batch.truncated,
        "entries": entries,
    }


def batch_summary(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "file_type": batch.kind,
        "total": len(batch.entries),
        "created_at": iso_utc(batch.created_at),
    }


def _entry_answer(
    entry: dict[str, Any],
    state: MediaState | None,
    job: MediaJob | None,
    *,
    base_url: str,
    key_prefix: str,
    bound_to: str,
) -> dict[str, Any]:
    failure = _failure(entry, job)
    file = None
    if state is not None and failure is None:
        file = media_answer(state, base_url=base_url, key_prefix=key_prefix, response_time_s=0.0, bound_to=bound_to)
    return {
        "url": entry["url"],
        "video_id": entry.get("video_id"),
        "state": _state(entry, state, job),
        "failure": failure,
        "job": job_summary(job) if job else None,
        "file": {name: file[name] for name in FILE_FIELDS} if file else None,
    }


def _state(entry: dict[str, Any], state: MediaState | None, job: MediaJob | None) -> str:
    if entry.get("error_code"):
        return JobState.FAILED.value
    if entry.get("cancelled") and (job is None or job.state != JobState.DONE):
        return JobState.CANCELLED.value
    if job is not None:
        return str(job.state)
    return JobState.DONE.value if state is not None else JobState.QUEUED.value


def _failure(entry: dict[str, Any], job: MediaJob | None) -> dict[str, Any] | None:
    code, message = entry.get("error_code"), entry.get("error_message")
    if not code and job is not None and job.state == JobState.FAILED:
        code, message = job.error_code, job.error_message
    if not code:
        return None
    error = error_from_code(code, message or "")
    return {"code": error.code, "message": error.message, "retryable": error.retryable}
