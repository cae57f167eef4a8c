"""Small real media for the stand-ins, made once by ffmpeg and kept in a folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import subprocess
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg

RECIPE_VERSION = 5
DASH = ["-movflags", "+dash+frag_keyframe+empty_moov+default_base_moof+global_sidx", "-frag_duration", "2000000"]

FAST_AAC = ["-aac_coder", "fast", "-aac_tns", "0", "-aac_pns", "0", "-aac_is", "0", "-aac_ms", "0"]  # 20 times as fast


@dataclass(frozen=True, kw_only=True)
class MediaFile:
    """One made file. ``kind`` is video, audio or muxed; ``faststart``: the index comes before the media."""

    name: str
    kind: str
    container: str
    mime: str
    codecs: str
    width: int | None = None
    height: int | None = None
    fps: int | None = None
    bitrate: int = 128_000
    faststart: bool = True


@dataclass(frozen=True, kw_only=True)
class Media:
    """Everything one video is offered as, by the name of each file."""

    seconds: float
    folder: Path
    files: dict[str, MediaFile]

    def read(self, name: str, mark: str = "") -> bytes:
        """The bytes of a file; with ``mark``, plus a box that no player looks at, so that each video has its own."""
        return _read(self.folder / name, self.files[name].container, mark)


def make_media(size: str = "small", folder: Path | None = None) -> Media:
    """Media of a size: "small" (6 s, up to 300 KB a file) or "large" (100 s, several MiB a file).

    Made at the first call for a folder (default: one in the temporary folder, shared by all runs of this user).
    """
    recipe = _RECIPES[size]
    digest = hashlib.sha256(json.dumps([RECIPE_VERSION, asdict(recipe), _outputs(recipe)]).encode()).hexdigest()[:12]
    root = folder or Path(tempfile.gettempdir()) / f"ytserver-media-{os.getuid()}"
    root.mkdir(parents=True, exist_ok=True)
    place = root / f"{size}-{digest}"
    with (root / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _make(recipe, place)
    return Media(seconds=recipe.seconds, folder=place, files=recipe.files())


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    seconds: int
    heights: tuple[int, ...]
    fps: int
    audio_kbps: int
    opus_kbps: int
    video_kbps: int

    def files(self) -> dict[str, MediaFile]:
        files = [
            MediaFile(name="audio.m4a", kind="audio", container="m4a", mime="audio/mp4", codecs="mp4a.40.2"),
            MediaFile(name="audio.webm", kind="audio", container="webm", mime="audio/webm", codecs="opus"),
            MediaFile(name="audio.mp3", kind="audio", container="mp3", mime="audio/mpeg", codecs="mp3"),
        ]
        for height in self.heights:
            video = MediaFile(
                name=f"video{height}.mp4", kind="video", container="mp4", mime="video/mp4", codecs="avc1.42001E",
                width=height * 16 // 9 // 2 * 2, height=height, fps=self.fps, bitrate=self.video_kbps * 1000,
            )  # fmt: skip
            both = replace(video, name=f"fast{height}.mp4", kind="muxed", codecs="avc1.42001E, mp4a.40.2")
            files += [video, both, replace(both, name=f"muxed{height}.mp4", faststart=False)]
        return {file.name: file for file in files}


_RECIPES = {
    "small": _Recipe(seconds=6, heights=(144, 240, 360), fps=10, audio_kbps=96, opus_kbps=64, video_kbps=120),
    "large": _Recipe(seconds=100, heights=(360, 720), fps=2, audio_kbps=320, opus_kbps=256, video_kbps=500),
}


def _outputs(recipe: _Recipe) -> list[list[list[str]]]:
    """Arguments of ffmpeg: one list for each run, in each one list for each file."""
    audio = f"anoisesrc=d={recipe.seconds}:c=pink:a=0.4:seed=7,aformat=channel_layouts=stereo:sample_rates=48000"
    audio_run = [
        ["-f", "lavfi", "-i", audio],
        ["-c:a", "aac", *FAST_AAC, "-b:a", f"{recipe.audio_kbps}k", *DASH, "audio.m4a"],
        ["-c:a", "libopus", "-b:a", f"{recipe.opus_kbps}k", "-compression_level", "0", "audio.webm"],
        ["-c:a", "libmp3lame", "-b:a", f"{recipe.audio_kbps}k", "-compression_level", "9", "audio.mp3"],
    ]
    runs = [audio_run]
    for height in recipe.heights:
        picture = f"testsrc2=d={recipe.seconds}:r={recipe.fps}:s={height * 16 // 9 // 2 * 2}x{height}"
        picture += ",noise=alls=8:allf=t:all_seed=5"  # so that the bitrate is used
        rate = ["-b:v", f"{recipe.video_kbps}k", "-maxrate", f"{recipe.video_kbps}k", "-bufsize", "200k"]
        encode = ["-c:v", "libx264", "-preset", "ultrafast", *rate, "-g", str(2 * recipe.fps), "-pix_fmt", "yuv420p"]
        runs.append([["-f", "lavfi", "-i", picture], [*encode, *DASH, f"video{height}.mp4"]])
        both = ["-i", f"video{height}.mp4", "-i", "audio.m4a"]
        copy = ["-map", "0:v", "-map", "1:a", "-c", "copy"]
        runs.append([both, [*copy, f"muxed{height}.mp4"], [*copy, "-movflags", "+faststart", f"fast{height}.mp4"]])
    return runs


def _make(recipe: _Recipe, place: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent))
    for run in _outputs(recipe):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-bitexact"]
        arguments = [argument for part in run for argument in part]
        done = subprocess.run([*command, *arguments], cwd=building, capture_output=True, check=False, timeout=120)
        if done.returncode:
            raise RuntimeError(f"ffmpeg could not make the test media: {done.stderr.decode()[-2000:]}")
    building.rename(place)


@lru_cache(maxsize=32)
def _read(path: Path, container: str, mark: str) -> bytes:
    data = path.read_bytes()
    note = mark.encode()
    if not note:
        return data
    if container in {"mp4", "m4a"}:
        return data + struct.pack(">I4s", 8 + len(note), b"free") + note
    if container == "mp3":
        return data + b"TAG" + note[:30].ljust(125, b"\0")  # an ID3v1 tag
    return data.replace(
        b"Lavf", hashlib.sha256(note).hexdigest()[:4].encode(), 1
    )  # webm: in the name of the program that wrote it
