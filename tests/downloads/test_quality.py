"""Which variant a wish becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import InvalidParameter, QualityUnavailable
from apps.downloads.providers.base import VideoInfo
from apps.downloads.quality import resolve_audio_variant, resolve_video_variant, variant_height


def make_info(heights: tuple[int, ...] = (), audio: tuple[str, ...] = ()) -> VideoInfo:
    return VideoInfo(video_id="dQw4w9WgXcQ", provider="x", title="x", video_heights=heights, audio_formats=audio)


class TestVideo:
    @pytest.mark.parametrize(
        ("quality", "variant"),
        [
            ("best", "1440p"), (" BEST ", "1440p"), ("1080", "1080p"), ("1080p", "1080p"), ("1080P", "1080p"),
            ("1000", "720p"), ("9999", "1440p"), ("144", "144p"),
        ],
    )  # fmt: skip
    def test_that_height_or_the_next_lower_one(self, quality: str, variant: str) -> None:
        assert resolve_video_variant(make_info((1440, 1080, 720, 144)), quality) == variant

    @given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(1, 99999))
    def test_never_gives_more_than_asked_for(self, heights: list[int], asked: int) -> None:
        fitting = [height for height in heights if height <= asked]
        if fitting:
            assert resolve_video_variant(make_info(tuple(heights)), str(asked)) == f"{max(fitting)}p"
        else:
            with pytest.raises(QualityUnavailable):
                resolve_video_variant(make_info(tuple(heights)), str(asked))

    def test_says_what_there_is_when_nothing_fits(self) -> None:
        with pytest.raises(QualityUnavailable) as caught:
            resolve_video_variant(make_info((720, 360)), "240")
        assert caught.value.context["available"] == ["720p", "360p"]

    def test_has_no_best_of_nothing(self) -> None:
        with pytest.raises(QualityUnavailable):
            resolve_video_variant(make_info(), "best")

    @pytest.mark.parametrize(
        "quality", ["", "0", "-1", "1080i", "hd", "1e3", "999999", "\uff11\uff10\uff18\uff10", "1080p60", "p", "10 80"]
    )
    def test_refuses_what_names_no_height(self, quality: str) -> None:
        with pytest.raises(InvalidParameter):
            resolve_video_variant(make_info((720,)), quality)


class TestAudio:
    def test_prefers_m4a_and_falls_back_to_mp3(self) -> None:
        assert resolve_audio_variant(make_info(audio=("m4a", "opus", "mp3")), None) == "m4a"
        assert resolve_audio_variant(make_info(audio=("mp3",)), None) == "mp3"
        assert resolve_audio_variant(make_info(), None) == "mp3"

    @pytest.mark.parametrize("format_", ["m4a", "OPUS", " mp3 "])
    def test_takes_a_named_format_whether_or_not_the_first_source_has_it(self, format_: str) -> None:
        assert resolve_audio_variant(make_info(), format_) == format_.strip().lower()

    @pytest.mark.parametrize("format_", ["", "wav", "m4a,mp3", "../m4a"])
    def test_refuses_what_names_no_format(self, format_: str) -> None:
        with pytest.raises(InvalidParameter):
            resolve_audio_variant(make_info(), format_)


def test_heights_of_variants() -> None:
    assert variant_height("1080p") == 1080
    assert variant_height("m4a") is None
