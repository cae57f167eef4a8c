"""Which formats make which variant, and answers that are not as they should be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.errors import QualityUnavailable, UpstreamError
from apps.downloads.providers.base import FetchPlan
from apps.downloads.providers.ways import Transport
from apps.downloads.providers.ytdlp_formats import (
    height_of,
    make_plan,
    make_video_info,
    seconds_until_available,
    usable_formats,
)
from apps.telegram_cache.documents import AssetKey

ID = "dQw4w9WgXcQ"
FIELDS = [
    "format_id", "url", "protocol", "ext", "vcodec", "acodec", "height", "width", "fps", "tbr", "filesize",
    "http_headers", "format_note", "language_preference", "available_at",
]  # fmt: skip
junk = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
)


def entry(format_id: str, **fields: Any) -> dict[str, Any]:
    url = f"https://rr1.googlevideo.com/{format_id}"
    base = {"format_id": format_id, "url": url, "protocol": "https", "ext": "mp4", "vcodec": "none", "acodec": "none"}
    return {**base, **fields}


def video(format_id: str, height: int, codec: str = "avc1.64001F", **fields: Any) -> dict[str, Any]:
    return entry(format_id, vcodec=codec, width=height * 16 // 9, height=height, **fields)


def audio(format_id: str, ext: str = "m4a", codec: str = "mp4a.40.2", **fields: Any) -> dict[str, Any]:
    return entry(format_id, ext=ext, acodec=codec, **fields)


def plan(kind: Any, variant: str, *formats: dict[str, Any]) -> FetchPlan:
    return make_plan({"id": ID, "title": "t", "formats": list(formats)}, AssetKey(ID, kind, variant), Transport())


def chosen(kind: Any, variant: str, *formats: dict[str, Any]) -> list[str]:
    return [file.source_id.removeprefix("ytdlp:") for file in plan(kind, variant, *formats).files]


def test_metadata_says_which_formats_are_hdr_and_what_music_it_is() -> None:
    formats = [
        video("hdr", 1080, "vp09.02", dynamic_range="HDR10"),
        video("sdr", 1080, dynamic_range="SDR"),
        audio("a"),
    ]
    info = make_video_info({"id": ID, "title": "t", "artist": "Band", "album": "First", "formats": formats}, ID)
    assert [item.dynamic_range for item in info.formats] == ["HDR10", "SDR", None]
    assert (info.artist, info.album) == ("Band", "First")


class TestChoice:
    def test_h264_then_av1_then_vp9(self) -> None:
        sound = audio("140", abr=128)
        vp9, av1, h264 = (
            video("v", 1080, "vp09.00.40", tbr=9e3),
            video("a", 1080, "av01.0.08M.08", tbr=5e3),
            video("h", 1080),
        )
        assert chosen("video", "1080p", vp9, av1, h264, sound) == ["h", "140"]
        assert chosen("video", "1080p", vp9, av1, sound) == ["a", "140"]
        assert chosen("video", "1080p", vp9, sound) == ["v", "140"]

    def test_within_a_codec_more_frames_then_more_bits(self) -> None:
        formats = [video("1", 720, fps=30, tbr=900), video("2", 720, fps=60, tbr=500), video("3", 720, fps=60, tbr=700)]
        assert chosen("video", "720p", *formats, audio("140")) == ["3", "140"]

    def test_only_that_very_height(self) -> None:
        with pytest.raises(QualityUnavailable):
            plan("video", "1080p", video("1", 720), video("2", 1440), audio("140"))

    def test_sound_is_m4a_else_opus(self) -> None:
        opus = audio("251", "webm", "opus", abr=160)
        assert chosen("video", "720p", video("1", 720), opus, audio("140", abr=128)) == ["1", "140"]
        assert chosen("video", "720p", video("1", 720), opus) == ["1", "251"]

    def test_the_original_language_before_the_bitrate_and_no_compressed_loudness(self) -> None:
        formats = [
            audio("140-0", abr=192, language_preference=-1),
            audio("140-drc", abr=130, language_preference=10),
            audio("140-1", abr=128, language_preference=10),
        ]
        assert chosen("audio", "m4a", *formats) == ["140-1"]

    def test_a_muxed_file_only_when_there_is_no_separate_sound(self) -> None:
        muxed = entry("18", vcodec="avc1.42001E", acodec="mp4a.40.2", width=640, height=360)
        assert plan("video", "360p", muxed, video("134", 360), audio("140")).finish == "mux"
        assert plan("video", "360p", muxed).finish == "remux"
        assert chosen("video", "360p", muxed, video("134", 360)) == ["18"]

    def test_a_silent_video_is_taken_as_it_is(self) -> None:
        made = plan("video", "360p", video("134", 360))
        assert (made.finish, len(made.files)) == ("remux", 1)
        with pytest.raises(QualityUnavailable):
            plan("audio", "mp3", video("134", 360))

    def test_sound_in_the_form_of_a_picture_is_taken_out_of_it(self) -> None:
        opus = audio("251", "webm", "opus", abr=160)
        muxed = entry("18", vcodec="avc1.42001E", acodec="mp4a.40.2", width=640, height=360)
        assert (plan("audio", "m4a", muxed, opus).finish, chosen("audio", "m4a", muxed, opus)) == ("extract", ["18"])
        webm = entry("43", ext="webm", vcodec="vp8", acodec="opus", width=640, height=360)
        assert (plan("audio", "opus", webm).finish, chosen("audio", "opus", webm, muxed)) == ("extract", ["43"])

    def test_opus_is_encoded_only_when_there_is_none_and_m4a_never(self) -> None:
        m4a, opus = audio("140", abr=128), audio("251", "webm", "opus", abr=160)
        assert (plan("audio", "opus", m4a).finish, plan("audio", "opus", m4a, opus).finish) == ("opus", "direct")
        with pytest.raises(QualityUnavailable):
            plan("audio", "m4a", opus)

    @pytest.mark.parametrize(
        ("formats", "offered"),
        [
            ([audio("140")], ("m4a", "opus", "mp3", "flac")),
            ([audio("251", "webm", "opus")], ("opus", "mp3", "flac")),
            ([entry("18", vcodec="avc1", acodec="mp4a.40.2")], ("m4a", "opus", "mp3", "flac")),
            ([video("134", 360)], ()),
        ],
    )
    def test_what_is_offered_is_what_can_be_made(self, formats: list[dict[str, Any]], offered: tuple[str, ...]) -> None:
        assert make_video_info({"id": ID, "title": "t", "formats": formats}, ID).audio_formats == offered
        for name in ("m4a", "opus", "mp3", "flac"):
            try:
                assert bool(plan("audio", name, *formats).files) is (name in offered)
            except QualityUnavailable:
                assert name not in offered

    def test_drm_playlists_and_odd_protocols_are_left_out(self) -> None:
        formats = [video("1", 720, has_drm=True), video("2", 720, protocol="m3u8_native"), video("3", 720, url=None), 5]
        assert usable_formats({"formats": formats}) == []

    def test_sizes_say_whether_they_are_exact(self) -> None:
        exact = plan("audio", "m4a", audio("140", filesize=1000)).files[0]
        guess = plan("audio", "m4a", audio("140", filesize_approx=1000)).files[0]
        assert (exact.size_bytes, exact.size_is_exact) == (1000, True)
        assert (guess.size_bytes, guess.size_is_exact) == (1000, False)

    def test_only_googlevideo_is_fetched_in_chunks(self) -> None:
        for url, chunk in (
            ("https://rr1.googlevideo.com/x", 10 * 1024 * 1024),
            ("https://evilgooglevideo.com/x", None),
        ):
            assert plan("audio", "m4a", audio("140", url=url)).files[0].chunk_bytes == chunk

    @pytest.mark.parametrize(
        "url", ["https://10.0.0.1/x", "http://8.8.8.8/x", "https://user@example.com/", "https://" + "a" * 9000]
    )
    def test_an_address_that_must_not_be_fetched_is_refused(self, url: str) -> None:
        with pytest.raises(UpstreamError):
            plan("audio", "m4a", audio("140", url=url))


class TestHeights:
    @pytest.mark.parametrize(
        ("fields", "height"),
        [
            ({"format_note": "1080p60 HDR", "width": 1080, "height": 1920}, 1080),
            ({"format_note": "1080p", "width": 1920, "height": 800}, 1080),
            ({"format_note": "English (default), 720p, DRC", "height": 720}, 720),
            ({"width": 1080, "height": 1920}, 1080),
            ({"height": 480}, 480),
            ({"format_note": "hd1080", "width": 1920, "height": 1080}, 1080),
            ({"width": 640}, None),
            ({"height": 10**9}, None),
            ({}, None),
        ],
    )
    def test_are_named_as_people_name_them(self, fields: dict[str, Any], height: int | None) -> None:
        assert height_of(fields) == height


class TestHostileAnswers:
    @settings(max_examples=60)
    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(FIELDS),
                junk | st.sampled_from(["https", "none", "opus", "https://example.com/"]),
                max_size=15,
            ),
            max_size=4,
        ),
        st.dictionaries(st.sampled_from(["duration", "view_count", "description", "channel", "thumbnail"]), junk),
    )  # fmt: skip
    def test_are_info_and_plans_or_one_of_two_errors(self, formats: list[Any], rest: dict[str, Any]) -> None:
        info = {"id": ID, "title": "t", "formats": formats, **rest}
        assert make_video_info(info, ID).title == "t"
        assert 0 <= seconds_until_available(info, now=1000.0) <= 15
        for kind, variant in (("video", "360p"), ("audio", "m4a"), ("audio", "opus"), ("audio", "mp3")):
            try:
                assert make_plan(info, AssetKey(ID, kind, variant), Transport()).files  # type: ignore[arg-type]
            except (QualityUnavailable, UpstreamError):
                continue

    def test_an_answer_about_another_video_is_refused(self) -> None:
        with pytest.raises(UpstreamError):
            make_video_info({"id": "otherVideo0", "title": "t"}, ID)

    def test_an_answer_without_a_title_is_refused(self) -> None:
        with pytest.raises(UpstreamError):
            make_video_info({"id": ID, "title": " \x00 "}, ID)
