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
from apps.downloads.fetch.outcomes import NotMedia
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


@dataclass(frozen=True, kw_only=True)
class FileHashes:
    size_bytes: int
    sha256: str
    blocks: tuple[bytes, ...]


def check_media(path: Path, plan: FetchPlan, *, size_was_declared: bool, stop: threading.Event) -> MediaFacts:
    """Raises NotMedia unless the file is media of the right kind and about the right length.

    A file whose size the source did not declare may have been cut without anybody noticing: then all of it is read.
    """
    try:
        facts = probe_media(path, stop=stop)
        duration_s = facts.duration_s
        if not size_was_declared:
            duration_s = measure_duration(path, timeout_s=copy_timeout_s(path), stop=stop)
    except FfmpegFailed as error:
        log.warning("not media", asset_id=plan.key.asset_id, reason=str(error))
        raise NotMedia from None
    is_video = plan.key.kind == MediaKind.VIDEO
    if (is_video and not facts.video_codec) or (not is_video and (facts.video_codec or not facts.audio_codec)):
        raise NotMedia(f"The outside source gave something that is not {plan.key.kind.value}.")
    if plan.duration_s and duration_s is not None:
        slack_s = max(DURATION_SLACK_S, DURATION_SLACK * plan.duration_s)
        if abs(duration_s - plan.duration_s) > slack_s:
            raise NotMedia("The outside source gave a file of another length than the video has.")
    return facts


def finish_file(plan: FetchPlan, files: list[Path], output: Path, *, stop: threading.Event) -> None:
    """Make the finished file as the plan says. Raises NotMedia when ffmpeg cannot read the files, UpstreamTimeout."""
    try:
        if plan.finish == "mp3":
            timeout_s = ENCODE_BASE_S + (plan.duration_s or copy_timeout_s(*files)) / ENCODE_SPEED
            run_ffmpeg(files, _mp3_options(plan), output, timeout_s=timeout_s, stop=stop)
        else:
            run_ffmpeg(files, _copy_options(plan), output, timeout_s=copy_timeout_s(*files), stop=stop)
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


def _copy_options(plan: FetchPlan) -> list[str]:
    if plan.finish == "mux":
        chosen = ["-map", "0:v:0", "-map", "1:a:0"]
    elif plan.key.kind == MediaKind.VIDEO:
        chosen = ["-map", "0:v:0", "-map", "0:a:0?"]
    else:
        chosen = ["-map", "0:a:0"]
    return [*chosen, "-c", "copy", "-map_metadata", "-1", *_tags(plan), "-movflags", "+faststart", "-f", "mp4"]


def _mp3_options(plan: FetchPlan) -> list[str]:
    encode = ["-map", "0:a:0", "-c:a", "libmp3lame", "-q:a", "0", "-map_metadata", "-1"]
    return [*encode, *_tags(plan), "-id3v2_version", "3", "-f", "mp3"]


def _tags(plan: FetchPlan) -> list[str]:
    tags = {"title": plan.title, "artist": plan.uploader}
    return [
        part
        for name, text in tags.items()
        if text
        for part in ("-metadata", f"{name}={text.replace(chr(0), '')[:500]}")
    ]
