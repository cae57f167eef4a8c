"""What SaveTube says about a video, checked field by field; and its refusals in our words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apps.core.errors import (
    AgeRestricted,
    ApiError,
    BotCheck,
    DrmProtected,
    GeoBlocked,
    LiveNotSupported,
    QualityUnavailable,
    UpstreamError,
    VideoPrivate,
    VideoUnavailable,
)
from apps.downloads.providers.base import Format, VideoInfo
from apps.downloads.providers.text import clean_text

MAX_KEY_CHARS = 4096
MAX_FORMATS = 100
MAX_HEIGHT = 8640
KNOWN_HEIGHTS = (2160, 1440, 1080, 720, 480, 360, 240, 144)
DEFAULT_AUDIO_KBPS = 128
RATE_LIMITED_RETRY_AFTER_S = 60.0
_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}")


class RateLimitedError(UpstreamError):
    """SaveTube said that we ask too often: asking once more at once, for whatever it is, does not help."""

    def __init__(self) -> None:
        super().__init__(retry_after_s=RATE_LIMITED_RETRY_AFTER_S)


_REFUSALS: tuple[tuple[re.Pattern[str], Callable[[], ApiError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), error)
    for pattern, error in (
        (r"not a bot|captcha", BotCheck),
        (r"rate.?limit|too many requests", RateLimitedError),
        (r"try again", UpstreamError),
        (r"\bdrm\b", DrmProtected),
        (r"private|members.only", VideoPrivate),
        (r"\bage\b|age.restrict", AgeRestricted),
        (r"\bcountry\b|\bregion\b|geo.?block|geo.?restrict", GeoBlocked),
        (r"\blive\b|premiere", LiveNotSupported),
        (r"(quality|format|resolution)\b.*(not|un)|(not|un).*\b(quality|format|resolution)", QualityUnavailable),
        (r"video.*(unavailable|not available|not found|removed|deleted|does ?n.t exist|terminated)", VideoUnavailable),
    )
)
_SAYS_MORE = (BotCheck, RateLimitedError, DrmProtected, VideoPrivate, AgeRestricted, GeoBlocked)
_NOT_READY = re.compile(r"not ready|process|convert|progress|preparing|queue", re.IGNORECASE)


def refusal(message: object) -> ApiError | None:
    """The error that a ``status: false`` answer means. None when it does not say why."""
    text = message[:1000] if isinstance(message, str) else ""
    return next((error() for pattern, error in _REFUSALS if pattern.search(text)), None)


def means_not_ready(message: object) -> bool:
    """Whether a ``status: false`` answer to a download says to ask again soon, and names no reason to leave it."""
    says_so = isinstance(message, str) and bool(_NOT_READY.search(message[:1000]))
    return says_so and not isinstance(refusal(message), _SAYS_MORE)


@dataclass(frozen=True, kw_only=True)
class SaveTubeInfo:
    """An info answer that passed every check. ``heights`` is None when SaveTube did not say which there are."""

    key: str = field(repr=False)
    title: str
    duration_s: float | None
    thumbnail: str
    heights: tuple[int, ...] | None
    audio_kbps: tuple[int, ...]

    def as_video_info(self, video_id: str) -> VideoInfo:
        heights = self.heights or ()
        video = [
            Format(format_id=f"video:{height}", kind="muxed", container="mp4", height=height) for height in heights
        ]
        audio = [
            Format(format_id=f"audio:{rate}", kind="audio", container="mp3", audio_codec="mp3", bitrate_kbps=rate)
            for rate in self.audio_kbps
        ]
        return VideoInfo(
            video_id=video_id,
            provider="savetube",
            title=self.title,
            duration_s=self.duration_s,
            thumbnail=self.thumbnail,
            thumbnails=(self.thumbnail,) if self.thumbnail else (),
            formats=(*video, *audio),
            video_heights=heights,
            audio_formats=("mp3",) if self.audio_kbps else (),
        )


def read_info(opened: dict[str, Any], video_id: str) -> SaveTubeInfo:
    """Raises UpstreamError when a needed field is missing or wrong, or when the answer is about another video."""
    key, title, named = opened.get("key"), opened.get("title"), opened.get("id")
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        raise UpstreamError
    if not isinstance(title, str) or not (title := clean_text(title)):
        raise UpstreamError
    if isinstance(named, str) and _VIDEO_ID.fullmatch(named) and named != video_id:
        raise UpstreamError
    thumbnail = opened.get("thumbnail")
    is_address = isinstance(thumbnail, str) and re.fullmatch(r"https://[\x21-\x7e]{4,2000}", thumbnail)
    rates = _numbers(opened.get("audio_formats"), "quality", limit=2000)
    return SaveTubeInfo(
        key=key,
        title=title,
        duration_s=_duration(opened),
        thumbnail=str(thumbnail) if is_address else "",
        heights=_numbers(opened.get("video_formats"), "quality", "height", limit=MAX_HEIGHT),
        audio_kbps=(DEFAULT_AUDIO_KBPS,) if rates is None else rates,
    )


def _numbers(entries: object, *names: str, limit: int) -> tuple[int, ...] | None:
    """The distinct numbers of a list of formats, highest first; None when there is no such list."""
    if not isinstance(entries, list):
        return None
    found: set[int] = set()
    for entry in entries[:MAX_FORMATS]:
        values = (_number(entry.get(name), limit) for name in names) if isinstance(entry, dict) else ()
        found.update([value for value in values if value is not None][:1])
    return tuple(sorted(found, reverse=True))


def _number(value: object, limit: int) -> int | None:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,5})(?:p|kbps)?", value.strip(), re.ASCII)):
        value = int(match[1])
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and isinstance(value, int) and 0 < value <= limit else None


def _duration(opened: dict[str, Any]) -> float | None:
    seconds, label = opened.get("duration"), opened.get("durationLabel")
    if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", seconds, re.ASCII):
        seconds = float(seconds)
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e7:
        return float(seconds)
    if isinstance(label, str) and re.fullmatch(r"[0-9]{1,4}(:[0-9]{1,2}){0,2}", label, re.ASCII):
        total = 0
        for part in label.split(":"):
            total = total * 60 + int(part)
        return float(total) or None
    return None
