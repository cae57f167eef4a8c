"""From the quality or format that a caller asks for to the variant that names an asset."""

from __future__ import annotations

import re
from dataclasses import replace

from apps.core.errors import InvalidParameter, QualityUnavailable
from apps.downloads.providers.base import Format, VideoInfo
from apps.downloads.variants import (
    AS_IT_COMES,
    AUDIO_FORMATS,
    MP3_BITRATES_KBPS,
    TAGGED_ON_WISH,
    VIDEO_CODECS,
    VIDEO_CONTAINERS,
    WEBM_CODECS,
    AudioVariant,
    MediaOptions,
    VideoVariant,
    make_clip,
    parse_video_variant,
)
from apps.telegram_cache.documents import MediaKind

HEIGHT_SLACK = 0.03  # encoders cut a few lines off
_HEIGHT = re.compile(r"(?P<height>[1-9][0-9]{0,4})p?", re.ASCII)
_CODEC_NAMES = {"avc1": "h264", "h264": "h264", "vp9": "vp9", "vp09": "vp9", "av01": "av1"}


def resolve_video_variant(info: VideoInfo, quality: str, options: MediaOptions = AS_IT_COMES) -> str:
    """The variant ("1080p") for "best", "1080" or "1080p": that height or the next lower one that the video has.

    A codec, a container and a number of frames a second narrow down what the video has; of the frames, too, that
    number or the next lower one. Raises InvalidParameter for anything else, QualityUnavailable when the video has
    nothing that low, nothing of that kind, or no picture, and for what ``needs_pictures`` when the source did not
    tell its pictures.
    """
    asked = quality.strip().lower()
    match = _HEIGHT.fullmatch(asked)
    if asked != "best" and match is None:
        raise InvalidParameter("quality must be best or a height such as 1080.", parameter="quality")
    check_video_options(options)
    fitting = _heights(info, options)
    low_enough = [height for height in fitting if match is None or height <= int(match["height"])]
    if not low_enough:
        raise QualityUnavailable(available=[f"{height}p" for height in fitting] or pictures_of(info))
    height = max(low_enough)
    variant = VideoVariant(
        height=height,
        fps=_fps(info, options, height),
        codec=options.codec,
        container=options.container or "mp4",
        clip=make_clip(options, duration_s=info.duration_s),
    )
    return str(variant)


def resolve_audio_variant(info: VideoInfo, format: str | None, options: MediaOptions = AS_IT_COMES) -> str:
    """The variant for an audio format; None: m4a when the source has it, else mp3.

    A format that is asked for by name is taken as it is: another source of the chain may have what this one lacks.
    Raises InvalidParameter for a format that is never offered.
    """
    asked = ("m4a" if "m4a" in info.audio_formats else "mp3") if format is None else format.strip().lower()
    if asked not in AUDIO_FORMATS:
        raise InvalidParameter(f"format must be one of {', '.join(AUDIO_FORMATS)}.", parameter="format")
    if options.bitrate_kbps is not None and (asked != "mp3" or options.bitrate_kbps not in MP3_BITRATES_KBPS):
        rates = ", ".join(str(rate) for rate in MP3_BITRATES_KBPS)
        raise InvalidParameter(f"bitrate is for mp3, and one of {rates}.", parameter="bitrate")
    variant = AudioVariant(
        format=asked,
        bitrate_kbps=options.bitrate_kbps,
        tags=options.tags and asked in TAGGED_ON_WISH,
        clip=make_clip(options, duration_s=info.duration_s),
    )
    return str(variant)


def best_variant(info: VideoInfo, kind: MediaKind) -> str | None:
    """What "best" means for this video: its highest picture, or its audio as it is; None when it has no picture."""
    if kind is MediaKind.AUDIO:
        return resolve_audio_variant(info, None)
    return resolve_video_variant(info, "best") if info.video_heights else None


def asked_height(wish: str) -> int | None:
    """1080 for "1080" or "1080p"; None for anything else."""
    match = _HEIGHT.fullmatch(wish.strip().lower())
    return int(match["height"]) if match else None


def exact_variant(kind: MediaKind, wish: str | None, options: MediaOptions) -> str | None:
    """What the wish is called when the video has exactly that; None when only metadata can tell.

    Nothing is checked: a name that cannot be is stored nowhere.
    """
    try:
        clip = make_clip(options, duration_s=None)
    except InvalidParameter:
        return None
    asked = (wish or "").strip().lower()
    if kind is MediaKind.AUDIO:
        tags = options.tags and asked in TAGGED_ON_WISH
        audio = AudioVariant(format=asked, bitrate_kbps=options.bitrate_kbps, tags=tags, clip=clip)
        return str(audio) if asked in AUDIO_FORMATS else None
    height = asked_height(asked)
    if height is None:
        return None
    container = options.container or "mp4"
    return str(VideoVariant(height=height, fps=options.fps, codec=options.codec, container=container, clip=clip))


def variant_height(variant: str) -> int | None:
    """1080 for "1080p"; None for what is not a plain video variant."""
    parsed = parse_video_variant(variant)
    return parsed.height if parsed and parsed == VideoVariant(height=parsed.height) else None


def measured_quality(variant: str, *, width: int | None, height: int | None, fps: float | None) -> str:
    """A video variant with the height and the frames that its file was measured to have, should a source have given
    something else than it said ("480p" for "720p"); any other variant, and one that was not measured, as it is."""
    parsed = parse_video_variant(variant)
    if parsed is None or not width or not height:
        return variant
    short, long = sorted((width, height))
    label = max(short, round(long * 9 / 16))  # 1920x804 is called 1080p, and so is 1080x1920
    is_it = any(abs(side - parsed.height) <= HEIGHT_SLACK * parsed.height for side in (short, height, label))
    given_fps = round(fps) if fps and parsed.fps else parsed.fps
    return str(replace(parsed, height=parsed.height if is_it else label, fps=given_fps))


def codec_name(codec: str | None) -> str | None:
    """h264, vp9 or av1 for a codec as sources spell it ("avc1.64001F"); None for any other."""
    return _CODEC_NAMES.get((codec or "").partition(".")[0].lower())


def codec_fits(codec: str | None, *, wanted: str | None, container: str) -> bool:
    """Whether a picture of this codec can be given as it is, without encoding it anew."""
    name = codec_name(codec)
    return (wanted is None or name == wanted) and (container != "webm" or name in WEBM_CODECS)


def check_video_options(options: MediaOptions) -> None:
    """Raises InvalidParameter for what no video can be."""
    if options.container not in (None, *VIDEO_CONTAINERS):
        raise InvalidParameter(f"container must be one of {', '.join(VIDEO_CONTAINERS)}.", parameter="container")
    if options.codec not in (None, *VIDEO_CODECS):
        raise InvalidParameter(f"codec must be any or one of {', '.join(VIDEO_CODECS)}.", parameter="codec")
    if options.container == "webm" and options.codec not in (None, *WEBM_CODECS):
        raise InvalidParameter("webm holds vp9 or av1. For h264 ask for mp4 or mkv.", parameter="codec")


def needs_pictures(options: MediaOptions) -> bool:
    """Whether it takes a source that tells its pictures (``VideoInfo.tells_pictures``) to say what there is."""
    return options.codec is not None or options.container == "webm" or options.fps is not None


def _fitting(info: VideoInfo, options: MediaOptions) -> list[Format]:
    return [
        item
        for item in info.formats
        if item.height
        and codec_fits(item.video_codec, wanted=options.codec, container=options.container or "mp4")
        and (options.container != "webm" or item.kind == "video")
        and (options.fps is None or (item.fps is not None and round(item.fps) <= options.fps))
    ]


def _heights(info: VideoInfo, options: MediaOptions) -> list[int]:
    """What there is, highest first; nothing is promised that the source did not say."""
    if not needs_pictures(options):
        return list(info.video_heights)
    return sorted({item.height for item in _fitting(info, options) if item.height}, reverse=True)


def pictures_of(info: VideoInfo) -> list[str]:
    """Every picture by a name that says what it is ("1080p60.h264"), best first; heights where nothing more is told."""
    there = {(item.height, round(item.fps or 0), codec_name(item.video_codec)) for item in info.formats if item.height}
    if not info.tells_pictures:
        return [f"{height}p" for height in info.video_heights]
    ranked = sorted(there, key=lambda one: (-one[0], -one[1], VIDEO_CODECS.index(one[2]) if one[2] else len(there)))
    names = (VideoVariant(height=height, fps=fps or None, codec=codec) for height, fps, codec in ranked)
    return [str(name) for name in names]


def what_there_is(info: VideoInfo, kind: MediaKind) -> list[str]:
    """What to name to somebody whose wish could not be had: audio formats, or heights."""
    return list(info.audio_formats) if kind is MediaKind.AUDIO else [f"{height}p" for height in info.video_heights]


def _fps(info: VideoInfo, options: MediaOptions, height: int) -> int | None:
    if options.fps is None:
        return None
    return max(round(item.fps) for item in _fitting(info, options) if item.height == height and item.fps)
