"""Which of yt-dlp's formats make which variant. Pure functions over one extraction answer."""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import urlsplit

from apps.core.errors import QualityUnavailable, UpstreamError
from apps.core.outbound import check_url
from apps.downloads.providers.base import Chapter, FetchPlan, Finish, Format, RemoteFile, SubtitleTrack, VideoInfo
from apps.downloads.providers.text import clean_text
from apps.downloads.providers.ways import Transport
from apps.downloads.quality import codec_fits
from apps.downloads.variants import AudioVariant, VideoVariant, parse_audio_variant, parse_video_variant
from apps.telegram_cache.documents import AssetKey

GOOGLEVIDEO_CHUNK_BYTES = 10 * 1024 * 1024  # as yt-dlp does: one long answer is throttled
MAX_URL_CHARS = 8192
MIMES = {
    ("video", "mp4"): "video/mp4",
    ("video", "webm"): "video/webm",
    ("video", "mkv"): "video/x-matroska",
    ("audio", "m4a"): "audio/mp4",
    ("audio", "webm"): "audio/webm",
    ("audio", "opus"): "audio/ogg",
    ("audio", "mp3"): "audio/mpeg",
    ("audio", "flac"): "audio/flac",
}
MAX_HEIGHT = 8640
MAX_WAIT_S = 15.0
_VIDEO_CODECS = ("avc1", "h264", "av01", "vp9", "vp09")  # best first: what plays everywhere
_LABEL = re.compile(r"(?:^|[ ,])(\d{3,4})p\d{0,3}\b", re.ASCII)
_HEADERS_SENT = ("User-Agent", "Accept", "Accept-Language", "Referer", "Origin")


def usable_formats(info: dict[str, Any]) -> list[dict[str, Any]]:
    """The formats that are one file over http or https, without DRM."""
    formats = info.get("formats")
    return [entry for entry in formats if _is_usable(entry)] if isinstance(formats, list) else []


def _is_usable(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and str(entry.get("protocol")) in {"http", "https"}
        and isinstance(entry.get("url"), str)
        and not entry.get("has_drm")
        and (_codec(entry, "vcodec") or _codec(entry, "acodec")) is not None
    )


def is_drm_protected(info: dict[str, Any]) -> bool:
    formats = info.get("formats")
    return (
        bool(formats)
        and isinstance(formats, list)
        and all(isinstance(entry, dict) and entry.get("has_drm") for entry in formats)
    )


def seconds_until_available(info: dict[str, Any], *, now: float) -> float:
    """How long until every media address answers; 0 for now, at most 15."""
    times = [_number(entry.get("available_at")) or 0.0 for entry in usable_formats(info)]
    return min(max(times, default=0.0) - now, MAX_WAIT_S) if max(times, default=0.0) > now else 0.0


def height_of(entry: dict[str, Any]) -> int | None:
    """The height by which people name a format: YouTube's own label, else the shorter side (upright videos)."""
    label = _LABEL.search(str(entry.get("format_note") or ""))
    if label:
        return int(label[1])
    sides = [_whole(entry.get(side)) for side in ("width", "height")]
    known = [side for side in sides if side]
    return min(known) if sides[1] and min(known) <= MAX_HEIGHT else None


def make_video_info(info: dict[str, Any], video_id: str) -> VideoInfo:
    """Raises UpstreamError when the answer is about another video, or has no title."""
    title = clean_text(str(info.get("title") or ""))
    if info.get("id") != video_id or not title:
        raise UpstreamError
    formats = usable_formats(info)
    heights = {height_of(entry) for entry in formats if _kind(entry) != "audio"} - {None}
    has_m4a = _best_audio(formats, "m4a") or _with_sound_like(formats, "m4a")
    encoded = ("opus", "mp3", "flac") if any(_codec(entry, "acodec") for entry in formats) else ()
    return VideoInfo(
        video_id=video_id,
        provider="ytdlp",
        title=title,
        uploader=_text(info, "channel") or _text(info, "uploader"),
        uploader_id=_text(info, "channel_id") or _text(info, "uploader_id"),
        artist=clean_text(_text(info, "artist")),
        album=clean_text(_text(info, "album")),
        description=_text(info, "description"),
        duration_s=_number(info.get("duration")),
        thumbnail=_text(info, "thumbnail"),
        thumbnails=tuple(url for url in info.get("thumbnails") or () if isinstance(url, str)),
        upload_date=_text(info, "upload_date"),
        view_count=_whole(info.get("view_count")),
        formats=tuple(_as_format(entry) for entry in formats),
        subtitles=_subtitles(info),
        chapters=_chapters(info),
        video_heights=tuple(sorted((height for height in heights if height), reverse=True)),
        audio_formats=(*(["m4a"] if has_m4a else []), *encoded),
    )


def make_plan(info: dict[str, Any], key: AssetKey, transport: Transport) -> FetchPlan:
    """Which files make the variant. Raises QualityUnavailable when this answer has none that do."""
    formats = usable_formats(info)
    variant = parse_video_variant(key.variant) if key.kind == "video" else parse_audio_variant(key.variant)
    if variant is None:
        raise QualityUnavailable
    chapters: tuple[Chapter, ...] = ()
    if isinstance(variant, VideoVariant):
        chosen, finish = _choose_video(formats, variant)
        chapters = _chapters(info)
    else:
        chosen, finish = _choose_audio(formats, variant)
    has_cover = isinstance(variant, AudioVariant) and (variant.tags or finish in {"mp3", "flac"})
    duration_s = _number(info.get("duration"))
    return FetchPlan(
        key=key,
        provider="ytdlp",
        files=tuple(_as_file(entry, transport) for entry in chosen),
        finish=finish,
        container=variant.container,
        mime=MIMES[key.kind, variant.container],
        title=clean_text(str(info.get("title") or "")),
        uploader=_text(info, "channel") or _text(info, "uploader"),
        artist=clean_text(_text(info, "artist")),
        album=clean_text(_text(info, "album")),
        duration_s=variant.clip.length_s if variant.clip else duration_s,
        thumbnail=_text(info, "thumbnail"),
        clip=variant.clip,
        bitrate_kbps=variant.bitrate_kbps if isinstance(variant, AudioVariant) else None,
        chapters=chapters,
        cover=_cover(info, transport) if has_cover else None,
    )


def _cover(info: dict[str, Any], transport: Transport) -> RemoteFile | None:
    url = _text(info, "thumbnail")
    try:
        check_url(url)
    except UpstreamError:
        return None
    return RemoteFile(url=url, source_id="ytdlp:thumbnail", proxy=transport.proxy, verify_tls=transport.verify_tls)


def _choose_video(formats: list[dict[str, Any]], variant: VideoVariant) -> tuple[list[dict[str, Any]], Finish]:
    fitting = [entry for entry in formats if height_of(entry) == variant.height and _fits(entry, variant)]
    video = max((e for e in fitting if _kind(e) == "video"), key=_video_rank, default=None)
    muxed = max((e for e in fitting if _kind(e) == "muxed"), key=_video_rank, default=None)
    opus, m4a = _best_audio(formats, "webm"), _best_audio(formats, "m4a")
    if variant.container == "webm":
        audio, muxed = opus, None
    else:
        audio = m4a or opus
    if video is not None and audio is not None:
        return [video, audio], "mux"
    if muxed is not None:
        return [muxed], "remux"
    if video is not None and not any(_codec(entry, "acodec") for entry in formats):
        return [video], "remux"  # a silent video
    raise QualityUnavailable


def _fits(entry: dict[str, Any], variant: VideoVariant) -> bool:
    fps = _number(entry.get("fps"))
    return codec_fits(_codec(entry, "vcodec"), wanted=variant.codec, container=variant.container) and (
        variant.fps is None or (fps is not None and round(fps) == variant.fps)
    )


def _choose_audio(formats: list[dict[str, Any]], variant: AudioVariant) -> tuple[list[dict[str, Any]], Finish]:
    m4a, opus = _best_audio(formats, "m4a"), _best_audio(formats, "webm")
    with_sound = [entry for entry in formats if _codec(entry, "acodec")]
    as_it_is: Finish = "remux" if variant.tags or variant.clip else "direct"
    if variant.format == "m4a" and m4a is not None:
        return [m4a], as_it_is
    if variant.format == "opus" and opus is not None:
        return [opus], as_it_is
    if variant.format in {"m4a", "opus"} and (muxed := _with_sound_like(formats, variant.format)):
        return [muxed], "extract"
    if variant.format == "opus" and (best := m4a or max(with_sound, key=_audio_rank, default=None)):
        return [best], "opus"
    if variant.format == "mp3" and (best := m4a or opus or max(with_sound, key=_audio_rank, default=None)):
        return [best], "mp3"
    if variant.format == "flac":  # the best there is, of whichever codec
        separate = [entry for entry in (m4a, opus) if entry is not None]
        if best := max(separate or with_sound, key=_audio_rank, default=None):
            return [best], "flac"
    raise QualityUnavailable


def _best_audio(formats: list[dict[str, Any]], container: str) -> dict[str, Any] | None:
    extensions = {"m4a": {"m4a", "mp4"}, "webm": {"webm"}}[container]
    fitting = [entry for entry in formats if _kind(entry) == "audio" and str(entry.get("ext")) in extensions]
    if container == "webm":
        fitting = [entry for entry in fitting if (_codec(entry, "acodec") or "").startswith("opus")]
    return max(fitting, key=_audio_rank, default=None)


def _with_sound_like(formats: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The best file with a picture whose sound is m4a (AAC) or opus: for when no file holds that sound alone."""
    codec = {"m4a": "mp4a", "opus": "opus"}[name]
    muxed = [e for e in formats if _kind(e) == "muxed" and (_codec(e, "acodec") or "").startswith(codec)]
    return max(muxed, key=_audio_rank, default=None)


def _audio_rank(entry: dict[str, Any]) -> tuple[float, ...]:
    """The original language, not the compressed loudness (DRC), then the bitrate."""
    is_drc = "drc" in str(entry.get("format_id", "")).lower()
    bitrate = _number(entry.get("abr")) or _number(entry.get("tbr")) or 0.0
    return _number(entry.get("language_preference")) or 0.0, -float(is_drc), bitrate


def _video_rank(entry: dict[str, Any]) -> tuple[float, ...]:
    codec = _codec(entry, "vcodec") or ""
    places = [place for place, name in enumerate(_VIDEO_CODECS) if codec.startswith(name)]
    family = min(places, default=len(_VIDEO_CODECS))
    is_hdr = str(entry.get("dynamic_range") or "SDR") != "SDR"
    return -float(is_hdr), -float(family), _number(entry.get("fps")) or 0.0, _number(entry.get("tbr")) or 0.0


def _as_file(entry: dict[str, Any], transport: Transport) -> RemoteFile:
    url = str(entry["url"])
    if len(url) > MAX_URL_CHARS:
        raise UpstreamError
    check_url(url)
    host = urlsplit(url).hostname or ""
    exact = _whole(entry.get("filesize"))
    headers = entry.get("http_headers")
    return RemoteFile(
        url=url,
        source_id=f"ytdlp:{entry.get('format_id')}",
        headers={name: str(headers[name]) for name in _HEADERS_SENT if name in headers}
        if isinstance(headers, dict)
        else {},
        size_bytes=exact or _whole(entry.get("filesize_approx")),
        size_is_exact=exact is not None,
        proxy=transport.proxy,
        proxy_id=transport.proxy_id,
        verify_tls=transport.verify_tls,
        chunk_bytes=GOOGLEVIDEO_CHUNK_BYTES if f".{host}".endswith(".googlevideo.com") else None,
    )


def _as_format(entry: dict[str, Any]) -> Format:
    exact = _whole(entry.get("filesize"))
    return Format(
        format_id=str(entry.get("format_id")),
        kind=_kind(entry),
        container=str(entry.get("ext") or ""),
        height=None if _kind(entry) == "audio" else height_of(entry),
        fps=_number(entry.get("fps")),
        dynamic_range=_text(entry, "dynamic_range")[:20] or None,
        video_codec=_codec(entry, "vcodec"),
        audio_codec=_codec(entry, "acodec"),
        bitrate_kbps=_number(entry.get("tbr")),
        size_bytes=exact or _whole(entry.get("filesize_approx")),
        size_is_estimate=exact is None,
    )


def _kind(entry: dict[str, Any]) -> Any:
    video, audio = _codec(entry, "vcodec"), _codec(entry, "acodec")
    return "audio" if video is None else "muxed" if audio is not None else "video"


def _codec(entry: dict[str, Any], name: str) -> str | None:
    codec = entry.get(name)
    return codec if isinstance(codec, str) and codec not in {"none", ""} else None


def _text(info: dict[str, Any], name: str) -> str:
    value = info.get(name)
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 else None


def _subtitles(info: dict[str, Any]) -> tuple[SubtitleTrack, ...]:
    tracks = []
    for field, automatic in (("subtitles", False), ("automatic_captions", True)):
        for language, name in (info.get(field) or {}).items():
            if language != "live_chat":
                tracks.append(SubtitleTrack(language=language, name=str(name), automatic=automatic))
    return tuple(tracks)


def _chapters(info: dict[str, Any]) -> tuple[Chapter, ...]:
    found = []
    for entry in info.get("chapters") or ():
        start = _number(entry.get("start_time"))
        if start is not None:
            title = clean_text(str(entry.get("title") or ""))
            found.append(Chapter(title=title, start_s=start, end_s=_number(entry.get("end_time"))))
    return tuple(found)
