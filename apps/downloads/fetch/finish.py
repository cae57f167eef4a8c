"""What happens to arrived files before they are an asset: checking, joining, encoding, hashing. All of it blocks."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from apps.core.errors import UpstreamTimeout
from apps.core.ffmpeg import (
    FfmpegFailed,
    FfmpegStopped,
    FfmpegTimeout,
    MediaFacts,
    measure_duration,
    probe_media,
    run_ffmpeg,
)
from apps.downloads.fetch.cover import demuxer_of
from apps.downloads.fetch.outcomes import NotMedia
from apps.downloads.fetch.vorbis import ffmetadata_text, write_cover_tags
from apps.downloads.providers.base import FetchPlan
from apps.streaming.hotstore import BLOCK_BYTES
from apps.telegram_cache.documents import MediaKind

log = structlog.get_logger(__name__)

COPY_BASE_S = 60.0
COPY_BYTES_PER_S = 4 * 1024 * 1024
ENCODE_BASE_S = 120.0
ENCODE_SPEED = 4.0  # seconds of sound a second: far slower than any machine that runs this
DURATION_SLACK_S = 4.0
DURATION_SLACK = 0.03
CLIP_LEAD_S = 15.0  # a copied picture begins at the key frame before the clip
COVER_PIXELS = 800
COVER_TIMEOUT_S = 20.0
OPUS_BITRATE = "160k"  # what YouTube's own best Opus has: nothing is lost that is not lost already
CHAPTERS = TAGS = "ffmetadata"
COVER_IS_A_TAG = frozenset({"opus"})  # Ogg has no stream for a picture; sound has no chapters
NO_FOREIGN_TAGS = ["-map_metadata:g", "-1", "-map_metadata:s", "-1"]  # those of chapters are our own
_FASTSTART = ["-movflags", "+faststart"]
_INDEX_FIRST = ["-cues_to_front", "1"]
MUXERS = {
    "mp4": [*_FASTSTART, "-f", "mp4"],
    "m4a": [*_FASTSTART, "-f", "ipod"],
    "webm": [*_INDEX_FIRST, "-f", "webm"],
    "mkv": [*_INDEX_FIRST, "-f", "matroska"],
    "mp3": ["-id3v2_version", "3", "-f", "mp3"],
    "flac": ["-f", "flac"],
    "opus": ["-f", "opus"],
}


@dataclass(frozen=True, kw_only=True)
class FileHashes:
    size_bytes: int
    sha256: str
    blocks: tuple[bytes, ...]


def check_media(path: Path, plan: FetchPlan, *, size_was_declared: bool, stop: threading.Event) -> MediaFacts:
    """Raises NotMedia unless the file is media of the right kind and about the right length.

    A file whose size the source did not declare may have been cut without anybody noticing: then all of it is read,
    picture and sound each by itself where they came as two files.
    """
    try:
        facts = probe_media(path, stop=stop)
        duration_s = facts.duration_s
        if not size_was_declared:
            streams = ("0:v:0", "0:a:0") if plan.finish == "mux" else ("0",)
            timeout_s = copy_timeout_s(path)
            duration_s = min(measure_duration(path, stream=one, timeout_s=timeout_s, stop=stop) for one in streams)
    except FfmpegFailed as error:
        log.warning("not media", asset_id=plan.key.asset_id, reason=str(error))
        raise NotMedia from None
    is_video = plan.key.kind == MediaKind.VIDEO
    if (is_video and not facts.video_codec) or (not is_video and (facts.video_codec or not facts.audio_codec)):
        raise NotMedia(f"The outside source gave something that is not {plan.key.kind.value}.")
    if plan.duration_s and duration_s is not None:
        slack_s = max(DURATION_SLACK_S, DURATION_SLACK * plan.duration_s)
        before_s = CLIP_LEAD_S if plan.clip and is_video else 0.0
        if not -slack_s <= duration_s - plan.duration_s <= slack_s + before_s:
            raise NotMedia("The outside source gave a file of another length than the video has.")
    return facts


def finish_file(
    plan: FetchPlan, files: list[Path], output: Path, *, cover: Path | None = None, stop: threading.Event
) -> None:
    """Make the finished file as the plan says. Raises NotMedia when ffmpeg cannot read the files, UpstreamTimeout."""
    timeout_s = copy_timeout_s(*files)
    if plan.finish in {"mp3", "opus", "flac"}:
        timeout_s = ENCODE_BASE_S + (plan.duration_s or timeout_s) / ENCODE_SPEED
    more = [*_cover_input(cover, stop=stop), *_chapters_input(plan, output)]
    if plan.container in COVER_IS_A_TAG:
        more = [_cover_as_tag(picture, output) for _, picture in more]
    options = finish_options(plan, inputs=len(files), more=[name for name, _ in more])
    try:
        run_ffmpeg(files, options, output, timeout_s=timeout_s, stop=stop, before_inputs=_cut(plan), more_inputs=more)
    except FfmpegTimeout:
        raise UpstreamTimeout("Making the finished file took too long.") from None
    except FfmpegFailed as error:
        log.warning("ffmpeg failed", asset_id=plan.key.asset_id, finish=plan.finish, reason=str(error))
        raise NotMedia from None


def copy_timeout_s(*paths: Path) -> float:
    return COPY_BASE_S + sum(path.stat().st_size for path in paths) / COPY_BYTES_PER_S


def hash_file(path: Path, *, stop: threading.Event) -> FileHashes:
    """SHA-256 of the file and of each of its 1 MiB blocks. Raises FfmpegStopped once ``stop`` is set."""
    whole = hashlib.sha256()
    blocks = []
    size = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            if stop.is_set():
                raise FfmpegStopped
            whole.update(block)
            blocks.append(hashlib.sha256(block).digest())
            size += len(block)
    return FileHashes(size_bytes=size, sha256=whole.hexdigest(), blocks=tuple(blocks))


def finish_options(plan: FetchPlan, *, inputs: int, more: list[str]) -> list[str]:
    """ffmpeg's options: which streams, how, and with which tags. ``more`` names the inputs behind the media."""
    options = [
        *_streams(plan),
        *_codecs(plan),
        *(["-copypriorss:a", "0"] if plan.clip else []),
        *NO_FOREIGN_TAGS,
        *_tags(plan),
    ]
    for number, name in enumerate(more, start=inputs):
        if plan.container in COVER_IS_A_TAG:
            options += ["-map_metadata:g", str(number)]
        elif name == CHAPTERS:
            options += ["-map_chapters", str(number)]
        else:
            options += ["-map", f"{number}:v:0", "-c:v", "copy", "-disposition:v:0", "attached_pic"]
    if CHAPTERS not in more or plan.container in COVER_IS_A_TAG:
        options += ["-map_chapters", "-1"]
    return [*options, *MUXERS[plan.container]]


def _streams(plan: FetchPlan) -> list[str]:
    if plan.finish == "mux":
        return ["-map", "0:v:0", "-map", "1:a:0"]
    if plan.key.kind == MediaKind.VIDEO:
        return ["-map", "0:v:0", "-map", "0:a:0?"]
    return ["-map", "0:a:0"]


def _codecs(plan: FetchPlan) -> list[str]:
    if plan.finish == "mp3":
        quality = ["-b:a", f"{plan.bitrate_kbps}k"] if plan.bitrate_kbps else ["-q:a", "0"]
        return ["-c:a", "libmp3lame", *quality]
    if plan.finish == "opus":
        return ["-c:a", "libopus", "-b:a", OPUS_BITRATE]
    if plan.finish == "flac":
        return ["-c:a", "flac", "-sample_fmt", "s16"]
    return ["-c", "copy"]


def _cut(plan: FetchPlan) -> list[str]:
    """Copied pictures begin at the key frame before the clip; players skip to its start (an edit list)."""
    return ["-ss", f"{plan.clip.start_s:.3f}", "-t", f"{plan.clip.length_s:.3f}"] if plan.clip else []


def _cover_input(cover: Path | None, *, stop: threading.Event) -> list[tuple[str, Path]]:
    """The cover as a JPEG of bounded size; nothing when ffmpeg cannot make one of it."""
    if cover is None:
        return []
    name = demuxer_of(cover.read_bytes()[:16])
    if name is None:
        return []
    picture = cover.with_suffix(".jpg")
    scale = f"scale='min({COVER_PIXELS},iw)':-2"
    options = ["-map", "0:v:0", "-frames:v", "1", "-vf", scale, "-c:v", "mjpeg", "-q:v", "3", "-f", "mjpeg"]
    try:
        run_ffmpeg([], options, picture, timeout_s=COVER_TIMEOUT_S, stop=stop, more_inputs=[(name, cover)])
    except FfmpegFailed as error:
        log.info("no cover", reason=str(error)[-200:])
        return []
    return [("jpeg_pipe", picture)]


def _cover_as_tag(picture: Path, output: Path) -> tuple[str, Path]:
    path = output.with_suffix(".tags")
    write_cover_tags(picture, path)
    return TAGS, path


def _chapters_input(plan: FetchPlan, output: Path) -> list[tuple[str, Path]]:
    """The chapters as a file that ffmpeg reads; of a clip, those that it touches."""
    from_s, length_s = (plan.clip.start_s, plan.clip.length_s) if plan.clip else (0.0, plan.duration_s)
    if length_s is None or not plan.chapters:
        return []
    lines = [";FFMETADATA1"]
    ends = [chapter.start_s for chapter in plan.chapters[1:]] + [from_s + length_s]
    for chapter, next_start_s in zip(plan.chapters, ends, strict=True):
        start_s = max(chapter.start_s - from_s, 0.0)
        end_s = min((chapter.end_s or next_start_s) - from_s, length_s)
        if end_s > start_s:
            title = ffmetadata_text(" ".join(chapter.title.split()))
            times = f"START={round(start_s * 1000)}\nEND={round(end_s * 1000)}"
            lines.append(f"[CHAPTER]\nTIMEBASE=1/1000\n{times}\ntitle={title}")
    if len(lines) == 1:
        return []
    path = output.with_suffix(".chapters")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [(CHAPTERS, path)]


def _tags(plan: FetchPlan) -> list[str]:
    tags = {"title": plan.title, "artist": plan.artist or plan.uploader, "album": plan.album}
    return [
        part
        for name, text in tags.items()
        if text
        for part in ("-metadata", f"{name}={text.replace(chr(0), '')[:500]}")
    ]
