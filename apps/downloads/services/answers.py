"""The success JSON of the HTTP contract: media, metadata, jobs."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from apps.core.errors import error_from_code
from apps.core.tunables import link_ttl_s
from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.providers.base import VideoInfo
from apps.downloads.quality import measured_quality
from apps.downloads.services.info import fresh_for_s
from apps.downloads.services.media import MediaState, Tier
from apps.downloads.variants import container_of_variant
from apps.streaming.links import sign_link_pair
from apps.telegram_cache.documents import Asset

INFO_MAX_AGE_S = 300


class MediaLinks(NamedTuple):
    """What of an answer belongs to one caller and one moment."""

    download_url: str
    stream_url: str
    expires_at: str


def media_answer(
    state: MediaState, *, base_url: str, key_prefix: str, response_time_s: float, bound_to: str = ""
) -> dict[str, Any]:
    """The answer to a video or audio request: every field is always there."""
    asset = state.asset
    path = f"/stream/{asset.kind}/{asset.video_id}"
    links = media_links(path, asset.id, base_url=base_url, key_prefix=key_prefix, bound_to=bound_to)
    return {**describe_media(state, links), "response_time": shown_response_time(response_time_s)}


def shown_response_time(response_time_s: float) -> float:
    return round(response_time_s, 4)


def describe_media(state: MediaState, links: MediaLinks) -> dict[str, Any]:
    """The answer without the time it took."""
    asset = state.asset
    return {
        "status": True,
        "video_id": asset.video_id,
        "title": asset.title,
        "duration": duration_label(asset.duration_s),
        "duration_seconds": whole_seconds(asset.duration_s),
        "thumbnail": asset.thumbnail,
        "file_type": asset.kind,
        "quality": quality_of(asset),
        "container": container_of(asset),
        "file_size": asset.size_bytes,
        "media": measured(asset),
        "cached": state.tier is not Tier.EXTERNAL,
        "source": state.tier.value,
        "download_url": links.download_url,
        "stream_url": links.stream_url,
        "expires_at": links.expires_at,
        "job": None if state.job is None else job_summary(state.job),
        "telegram": telegram_copy(asset),
    }


def media_links(path: str, asset_id: str, *, base_url: str, key_prefix: str, bound_to: str = "") -> MediaLinks:
    """Links to the stream at ``path``, signed for a key; both end LINK_TTL_S from now."""
    expires_at = int(time.time()) + link_ttl_s()
    stream, download = sign_link_pair(
        path=path, asset_id=asset_id, key_prefix=key_prefix, expires_at=expires_at, bound_to=bound_to
    )
    return MediaLinks(f"{base_url}{download}", f"{base_url}{stream}", _shown_moment(expires_at))


@lru_cache(maxsize=16)
def _shown_moment(unix_s: int) -> str:
    return str(iso_utc(datetime.fromtimestamp(unix_s, UTC)))


def info_answer(info: VideoInfo, *, response_time_s: float) -> dict[str, Any]:
    """The answer to an info request: every field is always there."""
    date = info.upload_date
    return {
        "status": True,
        "video_id": info.video_id,
        "title": info.title,
        "channel": info.uploader,
        "channel_id": info.uploader_id,
        "artist": info.artist or None,
        "album": info.album or None,
        "description": info.description,
        "duration": duration_label(info.duration_s),
        "duration_seconds": whole_seconds(info.duration_s),
        "thumbnail": info.thumbnail,
        "thumbnails": list(info.thumbnails),
        "upload_date": f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else None,
        "view_count": info.view_count,
        "video_qualities": [f"{height}p" for height in info.video_heights],
        "hdr": any(item.dynamic_range not in (None, "SDR") for item in info.formats),
        "audio_formats": list(info.audio_formats),
        "formats": [item.model_dump() for item in info.formats],
        "subtitles": [item.model_dump() for item in info.subtitles],
        "chapters": [item.model_dump() for item in info.chapters],
        "response_time": shown_response_time(response_time_s),
    }


def info_headers(info: VideoInfo) -> dict[str, str]:
    """ETag and Cache-Control of an info answer. Reads the record for how long it stays fresh."""
    etag = f'W/"{hashlib.sha256(info.model_dump_json().encode()).hexdigest()[:32]}"'
    max_age_s = int(min(fresh_for_s(info.video_id), INFO_MAX_AGE_S))
    return {"ETag": etag, "Cache-Control": f"private, max-age={max_age_s}"}


def job_summary(job: MediaJob) -> dict[str, Any]:
    return {"id": job.id, "state": job.state, "progress": job_progress(job)}


def job_answer(job: MediaJob) -> dict[str, Any]:
    """Everything a caller may know of a job."""
    return {
        **job_summary(job),
        "stage": job.stage,
        "video_id": job.video_id,
        "file_type": job.kind,
        "quality": job.variant,
        "measured_quality": job.measured_quality,
        "bytes_done": job.bytes_done,
        "bytes_total": job.bytes_total,
        "speed_bytes_per_s": job.speed_bytes_per_s,
        "eta_s": job.eta_s,
        "attempts": job.attempts,
        "priority": job.priority or JobPriority.INTERACTIVE.value,
        "provider": job.provider,
        "provider_took_s": job.provider_took_s,
        "provider_errors": [dict(error) for error in job.provider_errors],
        "failure": _failure(job) if job.state == JobState.FAILED else None,
        "last_failure": _failure(job),
        "retry_at": iso_utc(job.retry_at),
        "created_at": iso_utc(job.created_at),
        "started_at": iso_utc(job.started_at),
        "finished_at": iso_utc(job.finished_at),
    }


def _failure(job: MediaJob) -> dict[str, Any] | None:
    if not job.error_code:
        return None
    error = error_from_code(job.error_code or "", job.error_message or "")
    return {"code": error.code, "message": error.message, "retryable": error.retryable}


def job_progress(job: MediaJob) -> float:
    """Per cent, 0 to 100, by bytes; 0 while the size is unknown."""
    if job.state == JobState.DONE:
        return 100.0
    if not job.bytes_total:
        return 0.0
    return min(100.0, round(100.0 * float(job.bytes_done) / float(job.bytes_total), 1))


def duration_label(duration_s: float | None) -> str:
    """ "3:32" or "1:02:03"; empty when the duration is unknown."""
    if duration_s is None:
        return ""
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def whole_seconds(duration_s: float | None) -> int | None:
    return None if duration_s is None else round(duration_s)


def iso_utc(moment: datetime | None) -> str | None:
    """ISO 8601 with a Z, to the second."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def container_of(asset: Asset) -> str:
    """The file name extension of an asset, also before its fetch has recorded it."""
    return str(asset.container or container_of_variant(asset.kind, asset.variant))


def quality_of(asset: Asset) -> str:
    """The ``quality`` field: what was asked for until the file is there, then what it is."""
    if not asset.is_finished:
        return str(asset.variant)
    return measured_quality(asset.variant, width=asset.width, height=asset.height, fps=asset.fps)


def measured(asset: Asset) -> dict[str, Any] | None:
    """The ``media`` field of the answer: what the finished file was measured to be; None before it was."""
    if not asset.is_finished or (asset.video_codec or asset.audio_codec) is None:
        return None
    return {
        "duration_s": asset.duration_s,
        "video_codec": asset.video_codec,
        "audio_codec": asset.audio_codec,
        "width": asset.width,
        "height": asset.height,
        "fps": asset.fps,
        "dynamic_range": asset.dynamic_range,
        "bitrate_kbps": asset.bitrate_kbps,
    }


def telegram_copy(asset: Asset) -> dict[str, Any] | None:
    """The ``telegram`` field of the answer; None unless every byte is there."""
    if not asset.is_in_telegram:
        return None
    first = min(asset.parts, key=lambda part: int(part.index))
    return {
        "message_link": asset.message_link,
        "parts": len(asset.parts),
        "file_unique_id": first.file_unique_id,
    }
