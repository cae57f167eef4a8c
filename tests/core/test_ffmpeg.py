import errno
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from apps.core.ffmpeg import (
    FfmpegFailed,
    FfmpegStopped,
    FfmpegTimeout,
    ffmpeg_path,
    measure_duration,
    probe_media,
    run_ffmpeg,
)
from tests.small_disk import filled, small_disk
from tests.standins.media import make_media
from tests.waiting import wait_until

ENDLESS = ["-af", "apad", "-t", "10000000", "-f", "null"]


@pytest.fixture(scope="module")
def media():
    return make_media("small").folder


def running_ffmpegs(parent: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in parent.children(recursive=True):
        try:
            if child.exe() == str(Path(ffmpeg_path()).resolve()):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_full_disk_is_told_as_any_writing_tells_it(media, tmp_path):
    with small_disk(tmp_path / "disk") as disk, filled(disk, leaving=100_000):
        with pytest.raises(OSError, match="No space left on device") as full:
            run_ffmpeg([media / "video360.mp4"], ["-c", "copy", "-f", "mp4"], disk / "output", timeout_s=60)
        assert full.value.errno == errno.ENOSPC


class TestProbeMedia:
    @pytest.mark.parametrize(
        ("name", "video", "audio"),
        [
            ("audio.m4a", None, "aac"),
            ("audio.webm", None, "opus"),
            ("audio.mp3", None, "mp3"),
            ("video360.mp4", "h264", None),
            ("muxed360.mp4", "h264", "aac"),
        ],
    )
    def test_says_what_is_in_a_file(self, media, name, video, audio):
        facts = probe_media(media / name)
        assert (facts.video_codec, facts.audio_codec) == (video, audio)
        assert abs(facts.duration_s - 6) < 0.3
        assert facts.height == (360 if video else None)

    @pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "HDR10"), ("arib-std-b67", "HLG"), ("bt709", "SDR")])
    def test_says_which_dynamic_range_a_picture_has(self, tmp_path, transfer, name):
        colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
        encode = ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-x264-params", colours]
        source = ["-f", "lavfi", "-i", "testsrc2=size=64x64:rate=5:duration=1"]
        command = [ffmpeg_path(), "-v", "error", *source, *encode, tmp_path / "hdr.mp4"]
        subprocess.run(command, check=True, timeout=120)
        assert probe_media(tmp_path / "hdr.mp4").dynamic_range == name

    def test_a_cover_picture_is_not_video(self, media, tmp_path):
        covered = tmp_path / "covered.m4a"
        command = [ffmpeg_path(), "-v", "error", "-i", media / "audio.mp3", "-i", media / "video360.mp4"]
        command += ["-map", "0:a", "-map", "1:v", "-c:a", "copy", "-c:v", "mjpeg", "-frames:v", "1"]
        subprocess.run([*command, "-disposition:v", "attached_pic", "-f", "mp4", covered], check=True, timeout=120)
        facts = probe_media(covered)
        assert (facts.video_codec, facts.audio_codec) == (None, "mp3")

    @pytest.mark.parametrize(
        "content", [b"", b"<html></html>", b"#EXTM3U\n/etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]
    )
    def test_anything_else_fails(self, tmp_path, content):
        path = tmp_path / "x.mp4"
        path.write_bytes(content)
        with pytest.raises(FfmpegFailed):
            probe_media(path)

    def test_a_name_that_looks_like_an_option_or_an_address_is_a_file(self, media, tmp_path, monkeypatch):
        odd = tmp_path / "http:--x%d.m4a"
        odd.write_bytes((media / "audio.m4a").read_bytes())
        assert probe_media(odd).audio_codec == "aac"


class TestMeasureDuration:
    def test_counts_what_is_really_there(self, media, tmp_path):
        half = tmp_path / "half.webm"
        data = (media / "audio.webm").read_bytes()
        half.write_bytes(data[: len(data) // 2])
        assert probe_media(half).duration_s == pytest.approx(6, abs=0.3)
        assert measure_duration(half, timeout_s=20) == pytest.approx(3, abs=0.7)


class TestRunFfmpeg:
    def test_an_error_is_reported_with_the_log(self, media, tmp_path):
        with pytest.raises(FfmpegFailed, match="nonsense"):
            run_ffmpeg([media / "audio.m4a"], ["-f", "nonsense"], tmp_path / "out", timeout_s=20)

    def test_too_long_is_killed(self, media, tmp_path):
        with pytest.raises(FfmpegTimeout):
            run_ffmpeg([media / "audio.m4a"], ENDLESS, tmp_path / "out", timeout_s=0.5)
        assert running_ffmpegs(psutil.Process()) == []

    def test_stops_when_it_is_called_off(self, media, tmp_path):
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(FfmpegStopped):
            run_ffmpeg([media / "audio.m4a"], ENDLESS, tmp_path / "out", timeout_s=60, stop=stop)
        assert running_ffmpegs(psutil.Process()) == []

    def test_dies_with_a_killed_parent(self, media, tmp_path):
        code = f"""
from pathlib import Path
from apps.core.ffmpeg import run_ffmpeg
run_ffmpeg([Path({str(media / "audio.m4a")!r})], {ENDLESS!r}, Path({str(tmp_path / "out")!r}), timeout_s=60)
"""
        parent = subprocess.Popen([sys.executable, "-c", code])
        found: list[psutil.Process] = []
        try:
            wait_until(lambda: found or found.extend(running_ffmpegs(psutil.Process(parent.pid))))
        finally:
            parent.kill()
            parent.wait()
        wait_until(lambda: not found[0].is_running() or found[0].status() == psutil.STATUS_ZOMBIE)
