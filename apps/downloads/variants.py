"""Names of variants: what makes one asset of a video different from another, spelled out in its name.

``1080p`` is an MP4 in the codec that plays everywhere; ``1080p60.vp9.webm`` says frames a second, codec and container;
``m4a``, ``opus``, ``mp3``, ``flac`` are sound, ``mp3-320`` says the bitrate, ``m4a.tags`` and ``mp3.tags`` have
title and cover. ``.clip-12000-30000`` at the end: only from second 12 to 30. The same wish always gives the same name.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from apps.core.errors import InvalidParameter
from apps.telegram_cache.documents import MediaKind

VIDEO_CONTAINERS = ("mp4", "webm", "mkv")
VIDEO_CODECS = ("h264", "vp9", "av1")
AUDIO_FORMATS = ("m4a", "opus", "mp3", "flac")
MP3_BITRATES_KBPS = (64, 96, 128, 160, 192, 256, 320)
TAGGED_ON_WISH = ("m4a", "opus", "mp3")  # as the source gives them they have no tags of ours; flac we always make
WEBM_CODECS = ("vp9", "av1")
MAX_CLIP_S = 3600.0
MIN_CLIP_S = 0.5
AUDIO_CONTAINERS = {"m4a": "m4a", "opus": "webm", "mp3": "mp3", "flac": "flac"}
TAGGED_OPUS = "opus"  # Ogg: WebM has no place for a cover

_CLIP = r"(?:\.clip-(?P<start>\d{1,9})-(?P<end>\d{1,9}))?"
_VIDEO = re.compile(
    r"(?P<height>[1-9]\d{0,4})p(?P<fps>[1-9]\d{0,2})?(?:\.(?P<codec>h264|vp9|av1))?(?:\.(?P<container>webm|mkv))?"
    + _CLIP,
    re.ASCII,
)
_AUDIO = re.compile(r"(?P<format>m4a|opus|mp3|flac)(?:-(?P<bitrate>[1-9]\d{1,2}))?(?P<tags>\.tags)?" + _CLIP, re.ASCII)


@dataclass(frozen=True)
class Clip:
    """A stretch of a video, in milliseconds from its start."""

    start_ms: int
    end_ms: int

    @property
    def start_s(self) -> float:
        return self.start_ms / 1000

    @property
    def length_s(self) -> float:
        return (self.end_ms - self.start_ms) / 1000

    def __str__(self) -> str:
        return f".clip-{self.start_ms}-{self.end_ms}"


@dataclass(frozen=True, kw_only=True)
class MediaOptions:
    """What a caller asks for beside quality or format. None, or False: as it comes."""

    container: str | None = None
    codec: str | None = None
    fps: int | None = None
    bitrate_kbps: int | None = None
    tags: bool = False
    start_s: float | None = None
    end_s: float | None = None

    def as_document(self) -> dict[str, Any]:
        """What differs from the defaults; ``MediaOptions(**document)`` reads it back."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


AS_IT_COMES = MediaOptions()


@dataclass(frozen=True, kw_only=True)
class VideoVariant:
    height: int
    fps: int | None = None
    codec: str | None = None
    container: str = "mp4"
    clip: Clip | None = None

    def __str__(self) -> str:
        codec = f".{self.codec}" if self.codec else ""
        container = "" if self.container == "mp4" else f".{self.container}"
        return f"{self.height}p{self.fps or ''}{codec}{container}{self.clip or ''}"


@dataclass(frozen=True, kw_only=True)
class AudioVariant:
    format: str
    bitrate_kbps: int | None = None
    tags: bool = False
    clip: Clip | None = None

    def __str__(self) -> str:
        bitrate = f"-{self.bitrate_kbps}" if self.bitrate_kbps else ""
        return f"{self.format}{bitrate}{'.tags' if self.tags else ''}{self.clip or ''}"

    @property
    def container(self) -> str:
        return TAGGED_OPUS if self.tags and self.format == "opus" else AUDIO_CONTAINERS[self.format]


def parse_video_variant(text: str) -> VideoVariant | None:
    """What a name means; None when it is not the name of a video variant."""
    match = _VIDEO.fullmatch(text)
    if match is None:
        return None
    return VideoVariant(
        height=int(match["height"]),
        fps=int(match["fps"]) if match["fps"] else None,
        codec=match["codec"],
        container=match["container"] or "mp4",
        clip=_clip_of(match),
    )


def parse_audio_variant(text: str) -> AudioVariant | None:
    """What a name means; None when it is not the name of an audio variant."""
    match = _AUDIO.fullmatch(text)
    if (
        match is None
        or (match["bitrate"] and match["format"] != "mp3")
        or (match["tags"] and match["format"] not in TAGGED_ON_WISH)
    ):
        return None
    return AudioVariant(
        format=match["format"],
        bitrate_kbps=int(match["bitrate"]) if match["bitrate"] else None,
        tags=bool(match["tags"]),
        clip=_clip_of(match),
    )


def container_of_variant(kind: str, variant: str) -> str:
    """The file name extension that a variant will have; "bin" for one that this version does not know."""
    parsed = parse_video_variant(variant) if kind == MediaKind.VIDEO else parse_audio_variant(variant)
    return parsed.container if parsed else "bin"


def make_clip(options: MediaOptions, *, duration_s: float | None) -> Clip | None:
    """The stretch that is asked for; None for the whole. Raises InvalidParameter for one that cannot be."""
    if options.start_s is None and options.end_s is None:
        return None
    start_s = options.start_s or 0.0
    end_s = options.end_s if options.end_s is not None else duration_s
    if duration_s is not None and start_s >= duration_s:
        raise InvalidParameter("start lies behind the end of the video.", parameter="start")
    if end_s is None:
        raise InvalidParameter("This video's length is not known: say where to end.", parameter="end")
    if duration_s is not None:
        end_s = min(end_s, duration_s)
    clip = Clip(round(start_s * 1000), round(end_s * 1000))
    if not MIN_CLIP_S <= clip.length_s <= MAX_CLIP_S:
        raise InvalidParameter(
            f"From start to end a clip has {MIN_CLIP_S} to {MAX_CLIP_S:.0f} seconds.", parameter="end"
        )
    return clip


def is_clip(variant: str) -> bool:
    """Whether a variant's name is that of a stretch of a video."""
    return ".clip-" in variant


def _clip_of(match: re.Match[str]) -> Clip | None:
    return Clip(int(match["start"]), int(match["end"])) if match["start"] else None
