"""Every form that a file can be made in, measured with ffmpeg (and mutagen) afterwards."""

import base64
import json
import re
import subprocess

import mutagen
import pytest
from mutagen.flac import Picture
from mutagen.id3 import ID3
from mutagen.oggopus import OggOpus

from apps.core.ffmpeg import ffmpeg_path, probe_media
from apps.downloads.documents import JobState
from apps.downloads.providers.base import Chapter
from apps.downloads.providers.ytdlp import YtDlpProvider
from apps.downloads.services.answers import measured
from apps.downloads.variants import Clip
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from tests.downloads.fetch.origin import remote
from tests.downloads.fetch.test_engine import VIDEO, asset, serve
from tests.standins import youtube as standin
from tests.standins.youtube import YouTubeStandIn

VIDEO_ID = "fetchtest01"
ONLY_MUXED = "onlymuxed01"
SECONDS = 6.0


@pytest.fixture(scope="module")
def picture() -> bytes:
    made = ["-f", "lavfi", "-i", "testsrc=size=480x360", "-frames:v", "1", "-f", "mjpeg", "-"]
    return subprocess.run([ffmpeg_path(), "-v", "error", *made], capture_output=True, check=True, timeout=120).stdout


@pytest.fixture
def youtube(fetcher, picture, monkeypatch):
    monkeypatch.setattr(standin, "PIXEL", picture)
    with YouTubeStandIn() as site:
        provider = YtDlpProvider(options=json.loads(site.settings["YTDLP_OPTIONS"]), children=1)
        fetcher.providers.append(provider)
        yield site
        provider.close()


def make(fetcher, kind: MediaKind, variant: str, *, video_id: str = VIDEO_ID) -> Asset:
    job = fetcher.fetch(AssetKey(video_id, kind, variant))
    assert job.state == JobState.DONE, job.error_message
    return asset()


def tags_of(path, name: str) -> mutagen.FileType:
    named = path.with_name(f"copy.{name}")
    named.write_bytes(path.read_bytes())
    return mutagen.File(named)


def test_mp3_has_its_bitrate_its_tags_and_a_cover(fetcher, youtube):
    made = make(fetcher, MediaKind.AUDIO, "mp3-128")
    assert made.bitrate_kbps == pytest.approx(128, rel=0.25)
    assert (made.container, made.mime, made.audio_codec, made.video_codec) == ("mp3", "audio/mpeg", "mp3", None)
    frames = ID3(fetcher.path(made))
    assert frames["TIT2"].text
    assert frames["TPE1"].text == ["Test Channel"]
    assert frames.getall("APIC")[0].mime == "image/jpeg"


def test_flac_is_what_was_there_with_tags_and_a_cover(fetcher, youtube):
    made = make(fetcher, MediaKind.AUDIO, "flac")
    assert (made.container, made.mime, made.audio_codec) == ("flac", "audio/flac", "flac")
    assert made.duration_s == pytest.approx(SECONDS, abs=0.2)
    found = tags_of(fetcher.path(made), "flac")
    assert found["artist"] == ["Test Channel"]
    assert found.pictures[0].mime == "image/jpeg"


def test_m4a_with_tags_has_the_same_sound(fetcher, youtube):
    made = make(fetcher, MediaKind.AUDIO, "m4a.tags")
    data = fetcher.read(made)
    found = tags_of(fetcher.path(made), "m4a")
    assert found["\xa9ART"] == ["Test Channel"]
    assert found["covr"]
    assert data.index(b"moov") < data.index(b"mdat")
    original = youtube.file_of(VIDEO_ID, 140)
    folder = fetcher.path(made).parent
    (folder / "original").write_bytes(original)
    assert sound_of(fetcher.path(made)) == sound_of(folder / "original")


def sound_of(path) -> bytes:
    """A hash over the packets: the same only when nothing was encoded anew."""
    command = [ffmpeg_path(), "-v", "error", "-i", path, "-map", "0:a:0", "-c", "copy", "-f", "md5", "-"]
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("variant", ["m4a", "m4a.tags"])
def test_m4a_of_a_video_that_is_one_file_only_is_taken_out_of_it(fetcher, youtube, variant):
    made = make(fetcher, MediaKind.AUDIO, variant, video_id=ONLY_MUXED)
    assert (made.container, made.mime, made.audio_codec, made.video_codec) == ("m4a", "audio/mp4", "aac", None)
    assert made.duration_s == pytest.approx(SECONDS, abs=0.2)
    assert fetcher.read(made).index(b"moov") < fetcher.read(made).index(b"mdat")
    original = fetcher.path(made).with_name("original")
    original.write_bytes(youtube.file_of(ONLY_MUXED, 18))
    assert sound_of(fetcher.path(made)) == sound_of(original)


@pytest.mark.parametrize(("variant", "container"), [("opus", "webm"), ("opus.tags", "opus")])
def test_opus_of_a_video_that_has_none_is_encoded(fetcher, youtube, variant, container):
    made = make(fetcher, MediaKind.AUDIO, variant, video_id=ONLY_MUXED)
    assert (made.container, made.audio_codec, made.video_codec) == (container, "opus", None)
    assert made.duration_s == pytest.approx(SECONDS, abs=0.2)


def test_a_clip_of_sound_that_is_taken_out_of_a_video_has_its_length(fetcher, youtube):
    made = make(fetcher, MediaKind.AUDIO, "m4a.clip-1500-4000", video_id=ONLY_MUXED)
    assert (made.audio_codec, made.duration_s) == ("aac", pytest.approx(2.5, abs=0.15))


@pytest.mark.parametrize("junk", [b"<html>", b"\xff\xd8\xff but no picture", b"\xff\xd8\xff" + bytes(3 * 1024 * 1024)])
def test_without_its_cover_the_file_is_made_all_the_same(fetcher, youtube, monkeypatch, junk):
    monkeypatch.setattr(standin, "PIXEL", junk)
    made = make(fetcher, MediaKind.AUDIO, "mp3")
    assert made.state == "ready"
    assert not ID3(fetcher.path(made)).getall("APIC")


def test_mkv_holds_the_original_streams(fetcher, youtube):
    made = make(fetcher, MediaKind.VIDEO, "360p.mkv")
    assert (made.container, made.mime) == ("mkv", "video/x-matroska")
    assert (made.video_codec, made.audio_codec, made.height) == ("h264", "aac", 360)


@pytest.mark.parametrize(("variant", "container"), [("m4a", "m4a"), ("opus", "webm"), ("mp3", "mp3"), ("flac", "flac")])
def test_a_clip_of_sound_has_its_length(fetcher, youtube, variant, container):
    made = make(fetcher, MediaKind.AUDIO, f"{variant}.clip-1500-4000")
    assert made.container == container
    assert made.duration_s == pytest.approx(2.5, abs=0.15)


def test_a_clip_of_a_video_has_its_length_and_both_streams(fetcher, youtube):
    made = make(fetcher, MediaKind.VIDEO, "360p.clip-2500-4500")
    data = fetcher.read(made)
    assert data.index(b"moov") < data.index(b"mdat")
    assert made.duration_s == pytest.approx(2.0, abs=0.5)
    assert (made.video_codec, made.audio_codec) == ("h264", "aac")


def test_a_video_without_that_codec_is_said_so(fetcher, youtube):
    job = fetcher.fetch(AssetKey(VIDEO_ID, MediaKind.VIDEO, "360p.vp9.webm"))
    assert (job.state, job.error_code) == (JobState.FAILED, "quality_unavailable")


def test_vp9_and_opus_become_a_webm_with_chapters(fetcher, origin, media, tmp_path):
    picture = tmp_path / "vp9.webm"
    source = ["-f", "lavfi", "-i", f"testsrc=size=128x72:rate=10:duration={SECONDS}"]
    encode = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", str(picture)]
    subprocess.run([ffmpeg_path(), "-v", "error", *source, *encode], check=True, timeout=60)
    files = (remote(origin.put("v", picture.read_bytes())), remote(origin.put("a", media.read("audio.webm"))))
    chapters = (Chapter(title="One; two = #3", start_s=0), Chapter(title="Rest", start_s=3))
    plan = {"files": files, "finish": "mux", "mime": "video/webm", "duration_s": SECONDS, "chapters": chapters}
    serve(fetcher, "", **plan, container="webm")
    assert fetcher.fetch(VIDEO).state == JobState.DONE
    made = asset()
    assert (made.video_codec, made.audio_codec, made.width, made.height, made.fps) == ("vp9", "opus", 128, 72, 10)
    assert chapters_of(fetcher.path(made)) == [(0.0, "One; two = #3"), (3.0, "Rest")]


def test_a_clip_has_the_chapters_that_it_touches(fetcher, origin, media):
    chapters = tuple(Chapter(title=name, start_s=start) for name, start in (("A", 0), ("B", 2), ("C", 5)))
    files = (remote(origin.put("v", media.read("video360.mp4"))), remote(origin.put("a", media.read("audio.m4a"))))
    plan = {"files": files, "finish": "mux", "container": "mp4", "mime": "video/mp4", "chapters": chapters}
    serve(fetcher, "", **plan, clip=Clip(1000, 4000), duration_s=3.0)
    assert fetcher.fetch(VIDEO).state == JobState.DONE
    assert chapters_of(fetcher.path(asset())) == [(0.0, "A"), (1.0, "B")]


def chapters_of(path) -> list[tuple[float, str]]:
    command = [ffmpeg_path(), "-v", "error", "-i", path, "-f", "ffmetadata", "-"]
    text = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()
    found = []
    for part in text.split("[CHAPTER]")[1:]:
        base = re.search(r"TIMEBASE=(\d+)/(\d+)", part)
        start = int(re.search(r"START=(\d+)", part)[1]) * int(base[1]) / int(base[2])
        found.append((round(start, 2), re.sub(r"\\(.)", r"\1", re.search(r"title=(.*)", part)[1])))
    return found


def test_music_is_tagged_with_its_artist_and_album(fetcher, origin, media):
    about = {"title": "Song", "uploader": "Some Channel", "artist": "Band", "album": "First"}
    source = remote(origin.put("a", media.read("audio.m4a")))
    serve(fetcher, "", files=(source,), finish="mp3", container="mp3", mime="audio/mpeg", duration_s=SECONDS, **about)
    assert fetcher.fetch(AssetKey(VIDEO_ID, MediaKind.AUDIO, "mp3")).state == JobState.DONE
    found = ID3(fetcher.path(asset()))
    assert [found[name].text for name in ("TIT2", "TPE1", "TALB")] == [["Song"], ["Band"], ["First"]]


def test_an_mp3_that_came_ready_made_gets_tags_and_a_cover(fetcher, origin, media, picture):
    source, cover = remote(origin.put("a", media.read("audio.mp3"))), remote(origin.put("p", picture))
    about = {"title": "Song", "uploader": "Band", "duration_s": SECONDS, "cover": cover}
    serve(fetcher, "", files=(source,), finish="remux", container="mp3", mime="audio/mpeg", **about)
    assert fetcher.fetch(AssetKey(VIDEO_ID, MediaKind.AUDIO, "mp3.tags")).state == JobState.DONE
    found = ID3(fetcher.path(asset()))
    assert (found["TIT2"].text, found["TPE1"].text) == (["Song"], ["Band"])
    assert found.getall("APIC")[0].mime == "image/jpeg"


@pytest.mark.parametrize(
    ("variant", "source", "container"),
    [("m4a.tags", "audio.m4a", "m4a"), ("opus.tags", "audio.webm", "opus"), ("mp3.tags", "audio.m4a", "mp3"),
     ("flac", "audio.webm", "flac")],
)  # fmt: skip
def test_every_format_of_sound_can_have_title_artist_album_and_cover(
    fetcher, origin, media, picture, variant, source, container
):
    about = {"title": "A = song; #1", "artist": "Band", "album": "First", "duration_s": SECONDS}
    finish = {"mp3.tags": "mp3", "flac": "flac"}.get(variant, "remux")
    files, cover = (remote(origin.put("a", media.read(source))),), remote(origin.put("p", picture))
    serve(fetcher, "", files=files, finish=finish, container=container, mime="audio/x", cover=cover, **about)
    job = fetcher.fetch(AssetKey(VIDEO_ID, MediaKind.AUDIO, variant))
    assert job.state == JobState.DONE, job.error_message
    made = fetcher.path(asset())
    said = seen_by_ffmpeg(made)
    for name, text in (("title", "A = song; #1"), ("artist", "Band"), ("album", "First")):
        assert re.search(rf"^\s+{name}\s*: {re.escape(text)}$", said, re.MULTILINE | re.IGNORECASE)
    assert re.search(r"Video: mjpeg.*480x360.*\(attached pic\)", said)
    if finish == "remux":  # the sound is the very same
        original = made.with_name("original")
        original.write_bytes(media.read(source))
        assert sound_of(made) == sound_of(original)


def test_opus_with_tags_comes_from_youtube_as_an_ogg_file_with_a_cover(fetcher, youtube):
    made = make(fetcher, MediaKind.AUDIO, "opus.tags")
    assert (made.container, made.mime, made.audio_codec, made.video_codec) == ("opus", "audio/ogg", "opus", None)
    found = OggOpus(fetcher.path(made))
    assert found["title"] == [made.title]
    block = Picture(base64.b64decode(found["metadata_block_picture"][0]))
    assert (block.mime, block.type, block.data[:3]) == ("image/jpeg", 3, b"\xff\xd8\xff")


def seen_by_ffmpeg(path) -> str:
    """What ffprobe would say (the wheel has ffmpeg only)."""
    return subprocess.run([ffmpeg_path(), "-hide_banner", "-i", path], capture_output=True, timeout=120).stderr.decode()


def test_what_the_answer_says_is_measured(fetcher, youtube):
    made = make(fetcher, MediaKind.VIDEO, "360p")
    facts = probe_media(fetcher.path(made))
    said = measured(made)
    assert (said["width"], said["height"], said["fps"]) == (facts.width, facts.height, facts.fps)
    assert (said["video_codec"], said["audio_codec"], said["dynamic_range"]) == ("h264", "aac", "SDR")
    assert said["bitrate_kbps"] == pytest.approx(made.size_bytes * 8 / 1000 / facts.duration_s, rel=0.02)
