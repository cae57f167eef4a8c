"""ffmpeg on local files: what a file holds, and bounded runs that never outlive the fetch they belong to."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import imageio_ffmpeg

PROBE_TIMEOUT_S = 30.0
POLL_S = 0.1
LOG_BYTES = 256 * 1024
DEMUXERS = "mov,matroska,mp3,ogg,aac,flac,wav"  # media containers only: no playlists, no scripts of other files
QUIET = ("-hide_banner", "-nostdin", "-protocol_whitelist", "file,pipe")

# Ends with the thread that started it (Linux), also when that is killed; a small program because code between fork
# and exec is not safe in a process with threads.
_LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

_DURATION = re.compile(r"^\s+Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
_TIME = re.compile(r"\btime=(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_STREAM = re.compile(r"^\s+Stream #0:\d+.*?: (Video|Audio): (\w+)(.*)$", re.MULTILINE)
_FPS = re.compile(r"([\d.]+) fps\b")
_BITRATE = re.compile(r"^\s+Duration: .*bitrate: (\d+) kb/s", re.MULTILINE)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_HDR_BY_TRANSFER = {"smpte2084": "HDR10", "arib-std-b67": "HLG"}
_SIZE = re.compile(r"\b(\d{2,5})x(\d{2,5})\b")


class FfmpegFailed(Exception):
    """ffmpeg ended with an error. The text is the end of its log: for the server's log, not for people."""


class FfmpegTimeout(FfmpegFailed):
    """ffmpeg took too long and was killed."""


class FfmpegStopped(Exception):
    """The run was called off by its ``stop`` event."""


@dataclass(frozen=True, kw_only=True)
class MediaFacts:
    """What a file's header says it is."""

    duration_s: float | None
    video_codec: str | None  # None: no picture, or only a cover
    audio_codec: str | None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    bitrate_kbps: float | None = None  # of the whole file
    dynamic_range: str | None = None  # SDR, HDR10 or HLG; None: no picture


@cache
def ffmpeg_path() -> str:
    """Where ffmpeg is: IMAGEIO_FFMPEG_EXE, else the one that comes with the wheel. Raises RuntimeError."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def probe_media(path: Path, *, stop: threading.Event | None = None) -> MediaFacts:
    """Read a local file's header. Raises FfmpegFailed when it is not media of a known container."""
    log = _run(_inputs([path]), timeout_s=PROBE_TIMEOUT_S, stop=stop, may_fail=True)
    streams = [match.groups() for match in _STREAM.finditer(log)]
    if not streams:
        raise FfmpegFailed(log[-500:])
    pictures = [(codec, rest) for kind, codec, rest in streams if kind == "Video" and "(attached pic)" not in rest]
    sounds = [codec for kind, codec, _ in streams if kind == "Audio"]
    size = _SIZE.search(pictures[0][1]) if pictures else None
    return MediaFacts(
        duration_s=_duration_s(log),
        video_codec=pictures[0][0] if pictures else None,
        audio_codec=sounds[0] if sounds else None,
        height=int(size.group(2)) if size else None,
        width=int(size.group(1)) if size else None,
        fps=_first_number(_FPS, pictures[0][1]) if pictures else None,
        bitrate_kbps=_first_number(_BITRATE, log),
        dynamic_range=_dynamic_range(pictures[0][1]) if pictures else None,
    )


def run_ffmpeg(
    inputs: Sequence[Path],
    options: Sequence[str],
    output: Path,
    *,
    timeout_s: float,
    stop: threading.Event | None = None,
    before_inputs: Sequence[str] = (),
    more_inputs: Sequence[tuple[str, Path]] = (),
) -> None:
    """Make ``output`` from local files. Raises FfmpegFailed, FfmpegTimeout, or FfmpegStopped once ``stop`` is set; and
    OSError as any writing does when the disk is full.

    ``before_inputs`` are options of each of ``inputs``; ``more_inputs``, which come after those, are files of one
    other format each, such as ("ffmetadata", path).

    When it raises, the process group is gone; what it wrote so far may lie in ``output``.
    """
    others = [part for name, path in more_inputs for part in ("-f", name, "-i", f"file:{path}")]
    _run([*_inputs(inputs, before_inputs), *others, *options, "-y", f"file:{output}"], timeout_s=timeout_s, stop=stop)


def measure_duration(path: Path, *, timeout_s: float, stop: threading.Event | None = None, stream: str = "0") -> float:
    """Seconds of media that are really in the file, found by reading all of it. Raises like ``run_ffmpeg``.

    ``stream``: what of it, as ffmpeg's ``-map`` names it ("0:v:0"); of all streams the longest counts."""
    options = ["-map", stream, "-c", "copy", "-f", "null", "-y", "file:/dev/null"]
    log = _run([*_inputs([path]), *options], timeout_s=timeout_s, stop=stop)
    times = _TIME.findall(log)
    return _seconds(*times[-1]) if times else 0.0


def _inputs(paths: Sequence[Path], before: Sequence[str] = ()) -> list[str]:
    return [part for path in paths for part in (*before, "-format_whitelist", DEMUXERS, "-i", f"file:{path}")]


def _dynamic_range(stream: str) -> str:
    """By the transfer function in a stream's colours, as ffmpeg names them: "(tv, bt2020nc/bt2020/smpte2084)"."""
    return next((name for function, name in _HDR_BY_TRANSFER.items() if function in stream), "SDR")


def _first_number(pattern: re.Pattern[str], text: str) -> float | None:
    match = pattern.search(text)
    return float(match[1]) if match else None


def _duration_s(log: str) -> float | None:
    match = _DURATION.search(log)
    return _seconds(*match.groups()) if match else None


def _seconds(hours: str, minutes: str, seconds: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _run(arguments: Sequence[str], *, timeout_s: float, stop: threading.Event | None, may_fail: bool = False) -> str:
    command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), ffmpeg_path(), *QUIET, *arguments]
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
                    break
                if stop is not None and stop.is_set():
                    raise FfmpegStopped
                if time.monotonic() > deadline:
                    raise FfmpegTimeout(f"killed after {timeout_s:.0f} s")
        finally:
            _kill_group(process)
        text = _tail(log.fileno())
    if process.returncode != 0 and not may_fail:
        for number in _NO_ROOM:
            if os.strerror(number) in text:
                raise OSError(number, os.strerror(number))
        raise FfmpegFailed(text[-500:])
    return text


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, LOG_BYTES, max(0, size - LOG_BYTES)).decode(errors="replace")
