"""What a key's limits say about videos, files and fetches."""

from __future__ import annotations

from apps.core.errors import FileTooLarge, VideoTooLong
from apps.downloads.selectors import active_assets, latest_job
from apps.keys.authentication import grant_for_prefix, grant_of_any_key
from apps.keys.grants import KeyGrant
from apps.keys.job_slots import take_job_slot


def check_media(prefix: str, *, duration_s: float | None, size_bytes: int | None) -> None:
    """Raises VideoTooLong or FileTooLarge, and what ``grant_of`` raises. What is not known yet (None) passes, and is
    checked when it is."""
    grant = grant_of(prefix)
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
    fetch, or the last one, found too large; and what ``grant_of`` raises. Idempotent for an asset."""
    grant = grant_of(prefix)
    if grant is not None:
        if grant.largest_file_bytes is not None and (job := latest_job(asset_id)) is not None:
            check_grant(grant, duration_s=None, size_bytes=job.size_at_least)
        take_job_slot(grant, asset_id, running=lambda: active_assets(prefix))


def is_too_large(prefix: str, size_bytes: int) -> bool:
    """Whether a key that waits for a file may not have one of this size. The limit of a key that was switched off, or
    has expired, holds for what it had begun to wait for."""
    grant = grant_of_any_key(prefix)
    most = None if grant is None else grant.largest_file_bytes
    return most is not None and size_bytes > most


def grant_of(prefix: str) -> KeyGrant | None:
    """What a key may do now. None for no prefix: the server itself, which has no limits. Raises KeyInvalid, KeyDisabled
    or KeyExpired for a key that may not be used (any more)."""
    return grant_for_prefix(prefix) if prefix else None
