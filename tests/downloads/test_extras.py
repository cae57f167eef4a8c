"""Subtitles and pictures: yt-dlp's own extractor and the YouTube stand-in behind the routes."""

import json

import pytest

from apps.core.errors import UpstreamError
from apps.downloads.documents import Identity, LookupRecord, ProxyUse
from apps.downloads.providers.ytdlp import YtDlpProvider
from apps.downloads.providers.ytdlp_subtitles import make_cues
from apps.downloads.services import lookups, subtitles, thumbnail_asking
from apps.downloads.services.asking import look_up
from apps.downloads.services.identities import Actor, add_proxy
from apps.downloads.services.lookups import LookupKind
from apps.downloads.services.thumbnail_asking import image_mime
from apps.downloads.services.ways import PooledWays
from tests.standins.socks import SocksStandIn
from tests.standins.youtube import PIXEL, YouTubeStandIn

WITH, WITHOUT = "captions001", "dQw4w9WgXcQ"
WHO = Actor(name="tester")
VTT = """WEBVTT

00:00:01.000 --> 00:00:03.000
Hello &lt;en&gt;

00:00:03.000 --> 00:00:05.000
you &amp; me
again

01:02:03.004 --> 01:02:04.004
late
"""


@pytest.fixture(scope="module")
def youtube():
    with YouTubeStandIn() as running:
        yield running


@pytest.fixture(scope="module")
def provider(youtube):
    made = YtDlpProvider(options=json.loads(youtube.settings["YTDLP_OPTIONS"]), children=1)
    yield made
    made.close()


@pytest.fixture
def outside(api, youtube, provider, monkeypatch):
    """The stand-in, without counts or faults; lookups are answered at once."""
    youtube.faults.clear()
    youtube.counts.clear()
    for module in (subtitles, thumbnail_asking):
        monkeypatch.setattr(module, "ytdlp_provider", lambda: provider)
    monkeypatch.setattr(lookups.Flight, "request", lambda flight: look_up(*flight.arguments))
    return youtube


@pytest.fixture
def pooled(outside, provider, monkeypatch):
    """yt-dlp takes its proxies from the pool."""
    monkeypatch.setattr(provider, "_ways", PooledWays())


class TestSubtitles:
    def test_come_as_vtt(self, api, outside):
        response = api.get("subtitles", url=WITH, lang="en")
        assert response.headers["Content-Type"] == "text/vtt; charset=utf-8"
        assert response.content.decode() == VTT

    def test_come_as_srt_and_as_plain_text(self, api, outside):
        srt = api.get("subtitles", url=WITH, lang="en", format="srt").content.decode()
        assert srt.startswith("1\n00:00:01,000 --> 00:00:03,000\nHello <en>\n\n2\n")
        txt = api.get("subtitles", url=WITH, lang="en", format="txt")
        assert txt.content.decode() == "Hello <en>\nyou & me\nagain\nlate\n"
        assert outside.counts["timedtext"] == 1

    def test_come_as_json_with_the_languages_there_are(self, api, outside):
        answer = api.get("subtitles", url=WITH, lang="en", format="json").json()
        assert answer["cues"][0] == {"start_s": 1.0, "end_s": 3.0, "text": "Hello <en>"}
        assert (answer["language"], answer["automatic"]) == ("en", False)
        there = {(track["language"], track["automatic"]) for track in answer["languages"]}
        assert ("en", False) in there
        assert any(language.startswith("de") and automatic for language, automatic in there)

    def test_automatic_ones_are_given_where_nobody_wrote_any(self, api, outside):
        answer = api.get("subtitles", url=WITH, lang="de", format="json").json()
        assert answer["automatic"] is True
        assert answer["cues"][0]["text"] == "Hello <de>"

    def test_without_a_language_the_languages_are_listed(self, api, outside):
        answer = api.get("subtitles", url=WITH).json()
        assert (answer["language"], answer["cues"]) == (None, [])
        assert answer["languages"]
        assert outside.counts["timedtext"] == 0

    def test_a_language_that_is_not_there_is_not_found_and_says_which_are(self, api, outside):
        response = api.get("subtitles", url=WITH, lang="fr")
        assert (response.status_code, response.json()["error"]) == (404, "not_found")
        assert "en" in response.json()["available"]
        assert api.get("subtitles", url=WITHOUT, lang="en").json()["available"] == []

    def test_a_private_video_is_private(self, api, outside):
        assert api.get("subtitles", url="private0001", lang="en").json()["error"] == "video_private"

    def test_a_youtube_that_refuses_them_is_an_upstream_error(self, api, outside):
        outside.faults.add("timedtext", status=429, times=9)
        assert api.get("subtitles", url=WITH, lang="en").json()["error"] == "upstream_error"

    @pytest.mark.parametrize(
        "fields", [{"lang": "x"}, {"lang": "en/.."}, {"lang": "en", "format": "ass"}, {"lang": "a" * 50}]
    )
    def test_nonsense_is_refused(self, api, fields):
        assert api.get("subtitles", url=WITH, **fields).json()["error"] == "invalid_parameter"

    @pytest.mark.parametrize(
        "events",
        [None, "x", [None, 5], [{}], [{"tStartMs": -1, "dDurationMs": 5, "segs": [{"utf8": "x"}]}],
         [{"tStartMs": 1, "dDurationMs": 5, "segs": "x"}], [{"tStartMs": "1", "dDurationMs": 5}]],
    )  # fmt: skip
    def test_what_is_no_cue_is_left_out(self, events):
        assert make_cues(events) == ()


class TestThumbnail:
    def test_is_fetched_once_and_kept(self, api, outside):
        for _ in range(3):
            response = api.get(f"thumbnail/{WITHOUT}")
            assert (response.status_code, response.content) == (200, PIXEL)
            assert response.headers["Content-Type"] == "image/jpeg"
            assert response.headers["Cache-Control"] == "private, max-age=86400"
        assert outside.counts["thumbnail"] == 1

    def test_the_best_size_that_there_is_is_taken(self, api, outside):
        outside.faults.add("thumbnail", status=404, times=2)
        assert api.get(f"thumbnail/{WITHOUT}").content == PIXEL
        assert outside.counts["thumbnail:hqdefault.jpg"] == 1

    def test_one_that_is_not_there_is_not_found(self, api, outside):
        outside.faults.add("thumbnail", status=404, times=3)
        assert api.get(f"thumbnail/{WITHOUT}").json()["error"] == "not_found"

    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 200, "body": "<html>no picture</html>"},
            {"status": 200, "body": PIXEL[:4] + b"x" * 1024 * 1024},
            {"status": 500},
            {"status": 302, "headers": {"Location": "https://evil.example/x.jpg"}},
        ],
        ids=["page", "too large", "500", "redirect"],
    )
    def test_what_is_no_picture_is_not_given(self, api, outside, fault):
        outside.faults.add("thumbnail", **fault)
        assert api.get(f"thumbnail/{WITHOUT}").json()["error"] == "upstream_error"

    def test_is_asked_for_by_a_link_too(self, api, outside):
        response = api.get("thumbnail", url=f"https://youtu.be/{WITHOUT}?t=5")
        assert (response.status_code, response.content) == (200, PIXEL)
        assert response.headers["ETag"] == api.get(f"thumbnail/{WITHOUT}").headers["ETag"]
        assert outside.counts["thumbnail"] == 1

    def test_a_link_to_something_else_is_refused(self, api, outside):
        assert api.get("thumbnail", url="https://example.org/").json()["error"] == "invalid_url"
        assert api.get("thumbnail").json()["error"] == "invalid_parameter"
        assert api.get(f"thumbnail/{WITHOUT}", url=WITHOUT).json()["error"] == "invalid_parameter"
        assert outside.counts["thumbnail"] == 0

    def test_only_ids_are_taken(self, api):
        for path in ("thumbnail/short", "thumbnail/..%2f..%2fetc", "thumbnail/dQw4w9WgXcQ.jpg"):
            assert api.get(path).status_code == 404

    def test_no_more_are_kept_than_there_is_room_for(self, api, outside, monkeypatch):
        monkeypatch.setitem(lookups.MAX_KEPT, LookupKind.THUMBNAIL, 2)
        monkeypatch.setattr(lookups, "DROPPED_AT_ONCE", 1)
        for number in range(4):
            api.get(f"thumbnail/aaaaaaaaaa{number}")
        assert LookupRecord.objects.count() == 2

    def test_comes_through_the_proxies_for_asking_and_past_one_that_is_not_there(self, api, outside, pooled):
        with SocksStandIn(target_port=outside._tls_port, password="word-of-s") as socks:
            fine = add_proxy("s", socks.url, use=ProxyUse.EXTRACT, actor=WHO).id
            gone = add_proxy("g", "http://127.0.0.1:1", use=ProxyUse.BOTH, actor=WHO).id
            unused = add_proxy("d", "http://127.0.0.1:2", use=ProxyUse.DOWNLOAD, actor=WHO).id
            for number in range(2):
                assert api.get(f"thumbnail/aaaaaaaaaa{number}").content == PIXEL
            assert (socks.asked, socks.users) == (["i.ytimg.com"] * 2, ["user"] * 2)
        stored = {entry.id: entry for entry in Identity.objects}
        assert (stored[gone].strikes, stored[gone].last_error) == (1, "upstream_unreachable")
        assert (stored[fine].strikes, stored[fine].answers, stored[unused].last_used_at) == (0, 2, None)

    def test_is_not_fetched_past_the_proxies_when_all_of_them_rest(self, api, outside, pooled):
        only = add_proxy("a", outside.url, actor=WHO).id
        outside.faults.add("thumbnail", status=429)
        for _ in range(2):
            LookupRecord.objects.delete()
            assert api.get(f"thumbnail/{WITHOUT}").json()["error"] == "upstream_error"
        assert outside.counts["thumbnail"] == 1
        assert Identity.objects.get(id=only).last_error == "rate_limited"

    @pytest.mark.parametrize(
        ("content", "mime"),
        [(b"\x89PNG\r\n\x1a\n..", "image/png"), (b"RIFF0000WEBP", "image/webp"), (PIXEL, "image/jpeg")],
    )
    def test_the_type_is_what_the_bytes_say(self, content, mime):
        assert image_mime(content) == mime
        with pytest.raises(UpstreamError):
            image_mime(b"<svg " + content)
