"""From the quality or format that a caller asks for to the variant that names an asset."""

from __future__ import annotations

import re

from apps.core.errors import InvalidParameter, QualityUnavailable
from apps.downloads.providers.base import VideoInfo
from apps.telegram_cache.documents import MediaKind

AUDIO_FORMATS = ("m4a", "opus", "mp3")
_HEIGHT = re.compile(r"(?P<height>[1-9][0-9]{0,4})p?", re.ASCII)


def resolve_video_variant(info: VideoInfo, quality: str) -> str:
    """The variant ("1080p") for "best", "1080" or "1080p": that height or the next lower one that the video has.

    Raises InvalidParameter for anything else, QualityUnavailable when the video has nothing that low (or no video).
    """
    asked = quality.strip().lower()
    match = _HEIGHT.fullmatch(asked)
    if asked != "best" and match is None:
        raise InvalidParameter("quality must be best or a height such as 1080.", parameter="quality")
    fitting = [height for height in info.video_heights if match is None or height <= int(match["height"])]
    if not fitting:
        raise QualityUnavailable(available=[f"{height}p" for height in info.video_heights])
    return f"{max(fitting)}p"


def resolve_audio_variant(info: VideoInfo, format: str | None) -> str:
    """The variant for an audio format; None: m4a when the source has it, else mp3.

    A format that is asked for by name is taken as it is: another source of the chain may have what this one lacks.
    Raises InvalidParameter for a format that is never offered.
    """
    if format is None:
        return "m4a" if "m4a" in info.audio_formats else "mp3"
    asked = format.strip().lower()
    if asked not in AUDIO_FORMATS:
        raise InvalidParameter(f"format must be one of {', '.join(AUDIO_FORMATS)}.", parameter="format")
    return asked


def best_variant(info: VideoInfo, kind: MediaKind) -> str | None:
    """What "best" means for this video: its highest picture, or its audio as it is; None when it has no picture."""
    if kind is MediaKind.AUDIO:
        return resolve_audio_variant(info, None)
    return resolve_video_variant(info, "best") if info.video_heights else None


def variant_height(variant: str) -> int | None:
    """1080 for "1080p"; None for what is not a video variant."""
    match = _HEIGHT.fullmatch(variant)
    return int(match["height"]) if match else None
