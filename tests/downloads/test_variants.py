"""What the names of variants say, and which wishes lead to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import InvalidParameter, QualityUnavailable
from apps.downloads.providers.base import Format, VideoInfo
from apps.downloads.quality import (
    measured_quality,
    needs_pictures,
    resolve_audio_variant,
    resolve_video_variant,
    variant_height,
)
from apps.downloads.variants import (
    MP3_BITRATES_KBPS,
    AudioVariant,
    Clip,
    MediaOptions,
    VideoVariant,
    container_of_variant,
    parse_audio_variant,
    parse_video_variant,
)

clips = st.none() | st.builds(Clip, st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))


def picture(height: int, codec: str, fps: float = 30) -> Format:
    return Format(format_id="x", kind="video", container="mp4", height=height, video_codec=codec, fps=fps)


INFO = VideoInfo(
    video_id="dQw4w9WgXcQ",
    provider="x",
    title="x",
    duration_s=200.0,
    formats=(
        picture(2160, "vp09.00.51.08", 60),
        picture(1080, "avc1.640028", 60),
        picture(1080, "vp9", 30),
        picture(1080, "av01.0.08M.08", 60),
        picture(720, "avc1.4d401f", 30),
        picture(720, "vp9", 60),
    ),
    video_heights=(2160, 1080, 720),
    audio_formats=("m4a", "opus", "mp3", "flac"),
)


class TestNames:
    @given(
        st.builds(
            VideoVariant,
            height=st.integers(1, 99999),
            fps=st.none() | st.integers(1, 999),
            codec=st.sampled_from([None, "h264", "vp9", "av1"]),
            container=st.sampled_from(["mp4", "webm", "mkv"]),
            clip=clips,
        )
    )
    def test_a_video_name_says_it_all(self, variant: VideoVariant) -> None:
        assert parse_video_variant(str(variant)) == variant
        assert len(str(variant)) <= 64

    @given(
        st.builds(AudioVariant, format=st.sampled_from(["opus", "flac", "m4a", "mp3"]), clip=clips)
        | st.builds(AudioVariant, format=st.just("mp3"), bitrate_kbps=st.sampled_from(MP3_BITRATES_KBPS), clip=clips)
        | st.builds(AudioVariant, format=st.sampled_from(("m4a", "opus", "mp3")), tags=st.booleans(), clip=clips)
    )
    def test_an_audio_name_says_it_all(self, variant: AudioVariant) -> None:
        assert parse_audio_variant(str(variant)) == variant

    def test_the_plain_names_stay_what_they_were(self) -> None:
        assert str(VideoVariant(height=1080)) == "1080p"
        assert [str(AudioVariant(format=name)) for name in ("m4a", "opus", "mp3")] == ["m4a", "opus", "mp3"]
        assert (variant_height("1080p"), variant_height("1080p.vp9"), variant_height("1080p60")) == (1080, None, None)

    @pytest.mark.parametrize("text", ["", "1080", "p", "1080p.mp4", "1080p.vp9.vp9", "1080p.clip-1", "mp3", "01p"])
    def test_nothing_else_is_a_video_name(self, text: str) -> None:
        assert parse_video_variant(text) is None

    @pytest.mark.parametrize("text", ["", "m4a-128", "flac.tags", "mp3-", "wav", "mp3-320.clip-a-b", "1080p"])
    def test_nothing_else_is_an_audio_name(self, text: str) -> None:
        assert parse_audio_variant(text) is None

    def test_the_container_follows_from_the_name(self) -> None:
        names = [
            ("video", "720p.webm"),
            ("video", "720p"),
            ("audio", "opus"),
            ("audio", "opus.tags"),
            ("audio", "flac"),
            ("audio", "?"),
        ]
        assert [container_of_variant(*name) for name in names] == ["webm", "mp4", "webm", "opus", "flac", "bin"]


class TestVideoWishes:
    @pytest.mark.parametrize(
        ("quality", "options", "variant"),
        [
            ("best", {"codec": "h264"}, "1080p.h264"),
            ("best", {"codec": "vp9", "container": "webm"}, "2160p.vp9.webm"),
            ("1440", {"container": "webm"}, "1080p.webm"),
            ("best", {"container": "mkv"}, "2160p.mkv"),
            ("best", {"codec": "av1", "container": "mp4"}, "1080p.av1"),
            ("1080", {"fps": 30}, "1080p30"),
            ("1080", {"fps": 50, "codec": "h264"}, "720p30.h264"),
            ("720", {"fps": 120}, "720p60"),
            ("720", {"start_s": 12.5, "end_s": 30.0}, "720p.clip-12500-30000"),
            ("720", {"start_s": 190.0}, "720p.clip-190000-200000"),
            ("720", {"end_s": 500.0}, "720p.clip-0-200000"),
        ],
    )
    def test_that_or_the_next_lower(self, quality: str, options: dict[str, object], variant: str) -> None:
        assert resolve_video_variant(INFO, quality, MediaOptions(**options)) == variant

    def test_nothing_of_that_kind_is_said_so(self) -> None:
        with pytest.raises(QualityUnavailable) as caught:
            resolve_video_variant(INFO, "480", MediaOptions(codec="vp9"))
        assert caught.value.context["available"] == ["2160p", "1080p", "720p"]

    def test_when_nothing_is_of_that_kind_every_picture_is_named(self) -> None:
        with pytest.raises(QualityUnavailable) as caught:
            resolve_video_variant(INFO, "best", MediaOptions(codec="h264", fps=24))
        there = ["2160p60.vp9", "1080p60.h264", "1080p60.av1", "1080p30.vp9", "720p60.vp9", "720p30.h264"]
        assert caught.value.context["available"] == there
        old = INFO.model_copy(update={"formats": (picture(360, "avc1.42001E", 25), picture(240, "theora"))})
        for options in (MediaOptions(container="webm"), MediaOptions(codec="vp9")):
            with pytest.raises(QualityUnavailable) as caught:
                resolve_video_variant(old, "best", options)
            assert caught.value.context["available"] == ["360p25.h264", "240p30"]

    @pytest.mark.parametrize("options", [{"codec": "vp9"}, {"fps": 60}, {"container": "webm"}])
    def test_what_a_source_does_not_tell_is_not_promised(self, options: dict[str, object]) -> None:
        silent = INFO.model_copy(update={"formats": (), "video_heights": (720,)})
        with pytest.raises(QualityUnavailable) as caught:
            resolve_video_variant(silent, "best", MediaOptions(**options))
        assert caught.value.context["available"] == ["720p"]
        assert needs_pictures(MediaOptions(**options))
        assert resolve_video_variant(silent, "best", MediaOptions(container="mkv")) == "720p.mkv"

    @pytest.mark.parametrize(
        "options",
        [
            {"container": "avi"}, {"codec": "hevc"}, {"container": "webm", "codec": "h264"},
            {"start_s": 200.0}, {"start_s": 5.0, "end_s": 5.1}, {"start_s": 9.0, "end_s": 3.0},
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_refused(self, options: dict[str, object]) -> None:
        with pytest.raises(InvalidParameter):
            resolve_video_variant(INFO, "best", MediaOptions(**options))

    def test_a_clip_has_at_most_an_hour(self) -> None:
        long = INFO.model_copy(update={"duration_s": 8000.0})
        with pytest.raises(InvalidParameter):
            resolve_video_variant(long, "best", MediaOptions(start_s=0.0))
        with pytest.raises(InvalidParameter):
            resolve_video_variant(INFO.model_copy(update={"duration_s": None}), "best", MediaOptions(start_s=1.0))


class TestMeasured:
    @pytest.mark.parametrize(
        ("variant", "size", "fps", "quality"),
        [
            ("720p", (1280, 720), 30, "720p"), ("720p", (854, 480), 30, "480p"), ("720p", (1920, 1080), 30, "1080p"),
            ("1080p", (1920, 804), 24, "1080p"), ("1080p", (1080, 1920), 30, "1080p"),
            ("1080p", (608, 1080), 30, "1080p"), ("1080p", (1440, 1080), 30, "1080p"), ("720p", (640, 480), 30, "480p"),
            ("360p", (640, 268), 24, "360p"),
            ("1080p60", (1920, 1080), 29.97, "1080p30"), ("1080p60", (1920, 1080), 59.94, "1080p60"),
            ("720p.mkv.clip-0-9000", (640, 360), 25, "360p.mkv.clip-0-9000"), ("240p", (256, 144), 25, "144p"),
            ("720p", (None, None), None, "720p"), ("m4a", (None, None), None, "m4a"), ("144p", (256, 144), 60, "144p"),
        ],
    )  # fmt: skip
    def test_the_name_says_what_the_file_is(
        self, variant: str, size: tuple[int | None, int | None], fps: float | None, quality: str
    ) -> None:
        assert measured_quality(variant, width=size[0], height=size[1], fps=fps) == quality

    @given(st.integers(1, 9999), st.integers(1, 9999), st.integers(1, 4320))
    def test_whatever_is_measured_makes_a_name(self, width: int, height: int, asked: int) -> None:
        assert parse_video_variant(measured_quality(f"{asked}p", width=width, height=height, fps=None)) is not None


class TestAudioWishes:
    @pytest.mark.parametrize(
        ("format", "options", "variant"),
        [
            ("mp3", {"bitrate_kbps": 320}, "mp3-320"), ("mp3", {"tags": True}, "mp3.tags"), ("flac", {}, "flac"),
            ("m4a", {"tags": True}, "m4a.tags"), (None, {"tags": True}, "m4a.tags"),
            ("opus", {"start_s": 1.0, "end_s": 2.5}, "opus.clip-1000-2500"),
        ],
    )  # fmt: skip
    def test_each_has_a_name_of_its_own(self, format: str | None, options: dict[str, object], variant: str) -> None:
        assert resolve_audio_variant(INFO, format, MediaOptions(**options)) == variant

    @pytest.mark.parametrize(("format", "rate"), [("m4a", 128), ("mp3", 123), ("flac", 320)])
    def test_a_bitrate_that_cannot_be_is_refused(self, format: str, rate: int) -> None:
        with pytest.raises(InvalidParameter):
            resolve_audio_variant(INFO, format, MediaOptions(bitrate_kbps=rate))
