"""The SaveTube envelope: opens what is sealed right, and turns everything else into one clear error."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import UpstreamError
from apps.downloads.providers.savetube_cipher import MAX_DATA_CHARS, decrypt_info
from apps.downloads.providers.savetube_info import means_not_ready, read_info, refusal
from tests.standins.savetube import TEST_KEY, encrypt

KEY = bytes.fromhex(TEST_KEY)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    ["key", "title", "id", "thumbnail", "duration", "durationLabel", "video_formats", "audio_formats"]
)


class TestDecrypt:
    @given(st.dictionaries(st.text(max_size=10), json_values, max_size=6))
    def test_opens_what_was_sealed(self, payload: dict[str, object]) -> None:
        assert decrypt_info(encrypt(json.dumps(payload).encode()), KEY) == payload

    def test_ignores_white_space(self) -> None:
        assert decrypt_info(" \n\t".join(encrypt(b'{"a": 1}')), KEY) == {"a": 1}

    @given(st.binary(max_size=200) | st.text(max_size=200) | json_values)
    def test_anything_else_is_one_error(self, data: object) -> None:
        with pytest.raises(UpstreamError):
            decrypt_info(data, KEY)
        if isinstance(data, bytes):
            with pytest.raises(UpstreamError):
                decrypt_info(base64.b64encode(data).decode(), KEY)

    @given(st.data())
    def test_a_changed_envelope_opens_to_an_object_or_is_the_error(self, data: st.DataObject) -> None:
        sealed = bytearray(base64.b64decode(encrypt(b'{"key": "k", "title": "t", "duration": 12345678}')))
        at = data.draw(st.integers(0, len(sealed) - 1))
        sealed[at] ^= data.draw(st.integers(1, 255))
        with contextlib.suppress(UpstreamError):
            assert isinstance(decrypt_info(base64.b64encode(sealed).decode(), KEY), dict)

    @pytest.mark.parametrize(
        "data",
        [
            None, 5, "", "!!!!", "ümlaut", "AAAA", encrypt(b'{"a": 1}')[:-4], encrypt(b'{"a": 1}', "ff" * 16),
            encrypt(b"not json"), encrypt(b"[1, 2]"), encrypt(b"null"), encrypt(b"\xff\xfe{}"),
            encrypt(b"[" * 200_000), base64.b64encode(bytes(16)).decode(), base64.b64encode(bytes(40)).decode(),
            "A" * (MAX_DATA_CHARS + 4),
        ],
        ids=[
            "nothing", "a number", "an empty text", "no base64", "no ascii", "too short", "cut off", "another key",
            "no json", "a list", "null", "no utf-8", "too deep", "only an iv", "half a block", "too long",
        ],
    )  # fmt: skip
    def test_refuses_what_is_no_info(self, data: object) -> None:
        with pytest.raises(UpstreamError):
            decrypt_info(data, KEY)


class TestReadInfo:
    @given(st.dictionaries(fields, json_values, max_size=8))
    def test_any_object_is_checked_info_or_the_error(self, opened: dict[str, object]) -> None:
        try:
            info = read_info(opened, "dQw4w9WgXcQ").as_video_info("dQw4w9WgXcQ")
        except UpstreamError:
            return
        assert info.title
        assert all(0 < height <= 8640 for height in info.video_heights)

    def test_reads_numbers_in_every_way_they_are_written(self) -> None:
        opened = {
            "key": "k", "title": " A\x00 title\u2028here ", "durationLabel": "1:02:03", "thumbnail": "javascript:x",
            "video_formats": [{"quality": "720p"}, {"height": 360}, {"quality": 720}, {"quality": True}, 7],
            "audio_formats": [{"quality": 128}, {"quality": "320"}],
        }  # fmt: skip
        info = read_info(opened, "dQw4w9WgXcQ")
        assert (info.title, info.duration_s, info.thumbnail) == ("A title here", 3723.0, "")
        assert (info.heights, info.audio_kbps) == ((720, 360), (320, 128))

    def test_refuses_the_answer_for_another_video(self) -> None:
        with pytest.raises(UpstreamError):
            read_info({"key": "k", "title": "t", "id": "otherVideo0"}, "dQw4w9WgXcQ")

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ("This video is private", "video_private"),
            ("Video unavailable", "video_unavailable"),
            ("The video has been removed", "video_unavailable"),
            ("Sign in to confirm your age", "age_restricted"),
            ("Not available in your country", "geo_blocked"),
            ("Live videos are not supported", "live_not_supported"),
            ("Sign in to confirm you\u2019re not a bot", "bot_check"),
            ("This quality is not available", "quality_unavailable"),
            ("Too many requests", "upstream_error"),
            ("Internal error, average load, delivery", None),
            ("", None),
            (None, None),
            ({"a": 1}, None),
        ],
    )
    def test_refusals_in_our_words(self, message: object, code: str | None) -> None:
        error = refusal(message)
        assert (error.code if error else None) == code

    @pytest.mark.parametrize(
        ("message", "is_passing"),
        [
            ("File is being processed", True), ("Not ready, try again", True), ("In queue", True),
            ("This quality is not ready yet", True), ("Video not available yet: converting", True),
            ("Too many requests in progress", False), ("Rate limit: queue is full", False),
            ("Captcha in progress", False), ("This video is private and cannot be processed", False),
            ("Video unavailable", False), ("", False), (None, False),
        ],
    )  # fmt: skip
    def test_what_passes_by_itself_is_asked_for_again_and_a_reason_is_taken_as_one(
        self, message: object, is_passing: bool
    ) -> None:
        assert means_not_ready(message) is is_passing
