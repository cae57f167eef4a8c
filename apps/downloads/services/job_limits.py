"""What keeps a new fetch from being begun right now: too many of them, or one that failed a moment ago."""

from __future__ import annotations

from datetime import timedelta

from apps.core.clock import utcnow
from apps.core.errors import Overloaded, QuotaExceeded, error_from_code
from apps.core.tunables import clips_per_day, max_active_jobs, max_active_jobs_per_key
from apps.downloads.selectors import count_active_in_all_and_of, count_clips
from apps.telegram_cache.documents import Asset

OVERLOAD_RETRY_S = 15.0
CLIPS_COUNTED = timedelta(days=1)
CLIPS_RETRY_S = 3600.0


def raise_if_too_early(asset: Asset) -> None:
    wait_s = (asset.retry_at - utcnow()).total_seconds() if asset.retry_at else 0.0
    if wait_s > 0:
        error = error_from_code(asset.error_code or "", asset.error_message or "")
        error.retry_after_s = wait_s if error.retryable else None
        raise error


def raise_if_full(key_prefix: str) -> None:
    most, most_of_key = max_active_jobs(), max_active_jobs_per_key()
    active, active_of_key = count_active_in_all_and_of(key_prefix, limit=most, limit_of_key=most_of_key)
    if active >= most:
        raise Overloaded(retry_after_s=OVERLOAD_RETRY_S)
    if active_of_key >= most_of_key:
        raise Overloaded("This key has as many fetches waiting as a key may have.", retry_after_s=OVERLOAD_RETRY_S)


def raise_if_too_many_clips(key_prefix: str) -> None:
    """Any two times make a clip, so that one video could fill the store."""
    most = clips_per_day()
    if key_prefix and count_clips(key_prefix=key_prefix, since=utcnow() - CLIPS_COUNTED, limit=most) >= most:
        text = f"This key has had {most} clips made within a day, which is its limit."
        raise QuotaExceeded(text, retry_after_s=CLIPS_RETRY_S)
