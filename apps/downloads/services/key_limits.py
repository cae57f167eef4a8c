"""What a key's limits say about videos, files and fetches."""

from __future__ import annotations

from apps.core.errors import FileTooLarge, KeyDisabled, KeyExpired, KeyInvalid, VideoTooLong
from apps.downloads.selectors import active_assets, latest_job
from apps.keys.authentication import KeyGrant, grant_for_prefix
from apps.keys.job_slots import take_job_slot


def check_media(prefix: str, *, duration_s: float | None, size_bytes: int | None) -> None:
    """Raises VideoTooLong or FileTooLarge. What is not known yet (None) passes, and is checked when it is."""
    grant = _grant(prefix)
    if grant is not None:
        check_grant(grant, duration_s=duration_s, size_bytes=size_bytes)


def check_grant(grant: KeyGrant, *, duration_s: float | None, size_bytes: int | None) -> None:
    """The same for a grant."""
    if grant.longest_video_s is not None and duration_s is not None and duration_s > grant.longest_video_s:
        raise VideoTooLong(limit_s=grant.longest_video_s, duration_s=round(duration_s, 3))
    if grant.largest_file_bytes is not None and size_bytes is not None and size_bytes > grant.largest_file_bytes:
        raise FileTooLarge(limit_bytes=grant.largest_file_bytes, size_bytes=size_bytes)


def take_slot(prefix: str, asset_id: str) -> None:
    """A place among this key's simultaneous fetches. Raises TooManyJobs, and FileTooLarge for a file that the running
    fetch, or the last one, found too large. Idempotent for an asset."""
    grant = _grant(prefix)
    if grant is not None:
        if grant.largest_file_bytes is not None and (job := latest_job(asset_id)) is not None:
            check_grant(grant, duration_s=None, size_bytes=job.size_at_least)
        take_job_slot(grant, asset_id, running=lambda: active_assets(prefix))


def _grant(prefix: str) -> KeyGrant | None:
    """None for what is no key (the server's own fetches), and for a key that was switched off meanwhile."""
    try:
        return grant_for_prefix(prefix)
    except (KeyInvalid, KeyDisabled, KeyExpired):
        return None
