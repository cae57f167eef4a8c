"""Every failure text of yt-dlp that the facts list, in our words."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yt_dlp
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from apps.core.errors import ApiError, VideoUnavailable
from apps.downloads.providers import ytdlp_errors
from apps.downloads.providers.ytdlp_errors import blame, map_failure, spoils_session

RAISES = {"ExtractorError", "raise_no_formats", "raise_login_required", "raise_geo_restricted"}
PREFIX = "ERROR: [youtube] dQw4w9WgXcQ: "
TEXTS = [
    ("Private video. Sign in if you've been granted access to this video", "video_private"),
    ("Sign in to confirm your age. This video may be inappropriate for some users.", "age_restricted"),
    ("Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies", "bot_check"),
    ("Sign in to confirm you're not a bot.", "bot_check"),
    ("Video unavailable", "video_unavailable"),
    ("Video unavailable. This video has been removed by the uploader", "video_unavailable"),
    ("Video unavailable. This video is no longer available because the YouTube account associated with this video has "
     "been terminated.", "video_unavailable"),
    ("Video unavailable. The uploader has not made this video available in your country", "geo_blocked"),
    ("The uploader has not made this video available in your country", "geo_blocked"),
    ("Join this channel to get access to members-only content like this video, and other exclusive perks.",
     "video_private"),
    ("This content isn't available, try again later. The current session has been rate-limited by YouTube for up to "
     "an hour.", "upstream_error"),
    ("Premieres in 3 hours", "live_not_supported"),
    ("This live event will begin in 2 days.", "live_not_supported"),
    ("This video is DRM protected", "drm_protected"),
    ("Failed to extract any player response", "upstream_error"),
    ("unable to download video data: HTTP Error 403: Forbidden", "upstream_error"),
    ("Unable to download API page: HTTP Error 429: Too Many Requests", "upstream_error"),
    ("Got error: The read operation timed out. Giving up after 3 retries", "upstream_timeout"),
    ("Unable to download webpage: [Errno 111] Connection refused", "upstream_unreachable"),
    ("Unable to download webpage: Failed to resolve 'www.youtube.com'", "upstream_unreachable"),
    ("This video is unavailable. YouTube is requiring a captcha challenge before playback", "bot_check"),
    ("All player responses are invalid. Your IP is likely being blocked by Youtube", "bot_check"),
    ("Please sign in. Use --cookies-from-browser or --cookies for the authentication.", "bot_check"),
    ("This content isn't available, try again later. Your account has been rate-limited by YouTube for up to an hour.",
     "upstream_error"),
    ("This video is age-restricted and only available on YouTube", "age_restricted"),
    ("The following content has been identified by the YouTube community as inappropriate or offensive to some "
     "audiences.", "age_restricted"),
    ("This video is only available to Music Premium members", "video_private"),
    ("This video is available to this channel's members on level: Gold (or any higher level).", "video_private"),
    ("This video requires payment to watch", "video_private"),
    ("Video unavailable. This video contains content from X, who has blocked it in your country on copyright grounds",
     "geo_blocked"),
    ("Video unavailable. This video contains content from X, who has blocked it on copyright grounds",
     "video_unavailable"),
    ("This video isn't available anymore", "video_unavailable"),
    ("This video has been removed for violating YouTube's Terms of Service", "video_unavailable"),
    ("Premiere will begin shortly", "live_not_supported"),
    ("This live stream recording is not available.", "live_not_supported"),
    ("The channel is not currently live", "live_not_supported"),
    ("We're processing this video. Check back later.", "upstream_error"),
    ("The page needs to be reloaded.", "upstream_error"),
    ("An error occurred. Please try again later.", "upstream_error"),
    ("The following content is not available on this app. Watch on the latest version of YouTube.", "upstream_error"),
    ("No video formats found!", "upstream_error"),
    ("Unable to connect to proxy", "upstream_unreachable"),
    ("Tunnel connection failed: 407 Proxy Authentication Required", "upstream_unreachable"),
    ("Something that nobody has seen", "upstream_error"),
]  # fmt: skip


def texts_of_the_extractor() -> list[str]:
    """What the installed extractor itself can say, read from its source; "X" stands for what it puts in."""
    found = []
    folder = Path(yt_dlp.__file__).parent / "extractor" / "youtube"
    for name in ("_base.py", "_video.py", "_tab.py", "_search.py"):
        for node in ast.walk(ast.parse((folder / name).read_text())):
            called = getattr(node, "func", None)
            if getattr(called, "attr", getattr(called, "id", "")) in RAISES and node.args:
                found.append(text_of(node.args[0]))
    return sorted(filter(None, found))


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(
        getattr(part, "value", "X") if isinstance(part, ast.Constant) else "X" for part in getattr(node, "values", ())
    )


class TestMapFailure:
    def test_every_text_of_the_installed_extractor_is_in_the_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A new yt-dlp that says something new fails here (``make update-ytdlp``): decide what it means."""
        monkeypatch.setattr(ytdlp_errors, "_unknown_seen", set())
        texts = [text for text in texts_of_the_extractor() if text.strip("X")]
        assert len(texts) > 15
        for text in texts:
            with capture_logs() as logs:
                map_failure({"kind": "ExtractorError", "text": PREFIX + text, "warnings": []})
            assert logs == [], text

    @pytest.mark.parametrize(("text", "code"), TEXTS)
    def test_every_text_of_ytdlp_is_its_error(self, text: str, code: str) -> None:
        assert map_failure({"kind": "ExtractorError", "text": PREFIX + text, "warnings": []}).code == code

    def test_a_country_error_is_known_by_its_class(self) -> None:
        assert map_failure({"kind": "GeoRestrictedError", "text": "anything"}).code == "geo_blocked"

    def test_a_429_in_the_warnings_says_when_to_try_again(self) -> None:
        failure = {"kind": "ExtractorError", "text": PREFIX + "Failed to extract any player response",
                   "warnings": ["HTTP Error 429: Too Many Requests"]}  # fmt: skip
        error = map_failure(failure)
        assert (error.code, error.retry_after_s) == ("upstream_error", 60)
        assert spoils_session({"failure": failure})

    @pytest.mark.parametrize("video_id", ["aaaa429aaaa", "a-429-aaaaa", "captcha1234", "ab-DRM-cdef", "scheduledXX"])
    def test_the_id_that_a_caller_chose_is_no_word_of_youtube_s(self, video_id: str) -> None:
        failure = {
            "kind": "ExtractorError",
            "text": f"ERROR: [youtube] {video_id}: Video unavailable",
            "warnings": [f"[youtube] {video_id}: Some formats may be missing", f"WARNING: [youtube] {video_id}: Old"],
        }
        assert isinstance(map_failure(failure), VideoUnavailable)
        assert blame({"failure": failure}) is None
        assert not spoils_session({"failure": failure})

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("This live event will begin in 429 days.", "live_not_supported"),
            ("Premieres in 429 minutes", "live_not_supported"),
            ("This video is available to this channel's members on level: Captcha (or any higher level).",
             "video_private"),
            ("This video is available to this channel's members on level: Too Many Requests (or any higher level).",
             "video_private"),
            ("Join this channel to get access to members-only content like this video from not a bot.",
             "video_private"),
            ("Video unavailable. This video contains content from Captcha, who has blocked it in your country on "
             "copyright grounds", "geo_blocked"),
            ("Video unavailable. This video contains content from HTTP Error 429, who has blocked it on copyright "
             "grounds", "video_unavailable"),
        ],
    )  # fmt: skip
    def test_words_that_others_chose_put_nothing_to_rest(self, text: str, code: str) -> None:
        failure = {"kind": "ExtractorError", "text": PREFIX + text, "warnings": []}
        assert map_failure(failure).code == code
        assert map_failure(failure).retry_after_s is None
        assert blame({"failure": failure}) is None
        assert not spoils_session({"failure": failure})

    def test_a_bot_check_spoils_the_session_and_a_private_video_does_not(self) -> None:
        assert spoils_session({"failure": {"text": "Sign in to confirm you\u2019re not a bot"}})
        assert not spoils_session({"failure": {"text": "Private video"}})
        assert not spoils_session({"info": {}})

    def test_an_unknown_text_is_logged_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ytdlp_errors, "_unknown_seen", set())
        with capture_logs() as logs:
            for number in range(5):
                map_failure({"kind": "X", "text": f"Never seen before {number}"})
        assert [entry["event"] for entry in logs] == ["ytdlp_unknown_failure"]

    @given(
        st.none() | st.text() | st.dictionaries(st.sampled_from(["kind", "text", "warnings"]), st.text() | st.none())
    )
    def test_anything_maps_to_an_error(self, failure: object) -> None:
        assert isinstance(map_failure(failure), ApiError)
