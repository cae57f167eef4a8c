"""Lists: yt-dlp's own search and tab extractors against the YouTube stand-in."""

from __future__ import annotations

import pytest

from apps.core.errors import BotCheck, NotFound, UpstreamError, UpstreamTimeout
from apps.downloads.providers.listing import Listing, ListKind, ListQuestion
from apps.downloads.providers.ytdlp import YtDlpProvider
from apps.downloads.providers.ytdlp_lists import list_failure, make_listing
from tests.standins.youtube import YouTubeStandIn
from tests.standins.youtube_lists import CHANNEL_ID, NOTHING, channel_ids, playlist_ids, search_ids

TIMEOUT_S = 30.0
PLAYLIST = "PLabcdefghijklmnop"


def ask(ytdlp: YtDlpProvider, kind: ListKind, subject: str, *, page: int = 1, page_size: int = 20) -> Listing:
    question = ListQuestion(kind=kind, subject=subject, page=page, page_size=page_size)
    return ytdlp.list_videos(question, timeout_s=TIMEOUT_S)


def ids(listing: Listing) -> list[str]:
    return [video.video_id for video in listing.videos]


class TestSearch:
    def test_gives_what_youtube_finds(self, ytdlp: YtDlpProvider) -> None:
        listing = ask(ytdlp, ListKind.SEARCH, "a song: live")
        first = listing.videos[0]
        assert ids(listing) == search_ids("a song: live")[:20]
        assert (first.title, first.channel, first.channel_id) == ("a song: live 1", "Test Channel", CHANNEL_ID)
        assert (first.duration_s, first.view_count, first.live) == (212.0, 1234, False)
        assert listing.has_more

    def test_pages_follow_each_other_and_end(self, ytdlp: YtDlpProvider) -> None:
        pages = [ask(ytdlp, ListKind.SEARCH, "pages", page=page) for page in (1, 2, 3, 4)]
        assert [video_id for page in pages for video_id in ids(page)] == search_ids("pages")
        assert [page.has_more for page in pages] == [True, True, False, False]

    def test_no_more_is_asked_of_youtube_than_the_page_needs(
        self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn
    ) -> None:
        ask(ytdlp, ListKind.SEARCH, "few", page_size=5)
        assert youtube.counts["search"] == 1

    def test_nothing_found_is_an_empty_list(self, ytdlp: YtDlpProvider) -> None:
        assert ask(ytdlp, ListKind.SEARCH, NOTHING) == Listing(list_id=NOTHING, title=NOTHING, total=0)

    @pytest.mark.parametrize("words", ["https://evil.example/x", "ytsearch9:x", "-1", "ünïcode ♪", "a:b?c=d&e", "%s"])
    def test_words_are_only_ever_words(self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn, words: str) -> None:
        assert ids(ask(ytdlp, ListKind.SEARCH, words, page_size=3)) == search_ids(words)[:3]
        assert youtube.counts[f"search:{words}"] == 1

    def test_a_failing_youtube_is_an_upstream_error(self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn) -> None:
        youtube.faults.add("search", status=500, times=99)
        with pytest.raises(UpstreamError):
            ask(ytdlp, ListKind.SEARCH, "broken")

    def test_a_silent_youtube_costs_no_more_than_the_time_given(
        self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn
    ) -> None:
        youtube.faults.add("search", delay_s=60, times=9)
        question = ListQuestion(kind=ListKind.SEARCH, subject="slow")
        with pytest.raises(UpstreamTimeout):
            ytdlp.list_videos(question, timeout_s=1.0)


class TestPlaylist:
    def test_gives_its_videos_in_order_over_youtubes_own_pages(self, ytdlp: YtDlpProvider) -> None:
        pages = [ask(ytdlp, ListKind.PLAYLIST, PLAYLIST, page=page, page_size=50) for page in (1, 2, 3)]
        assert [video_id for page in pages for video_id in ids(page)] == playlist_ids(PLAYLIST)
        assert [page.has_more for page in pages] == [True, True, False]
        assert (pages[0].title, pages[0].list_id) == (f"Playlist {PLAYLIST}", PLAYLIST)

    def test_one_that_does_not_exist_is_not_found(self, ytdlp: YtDlpProvider) -> None:
        with pytest.raises(NotFound):
            ask(ytdlp, ListKind.PLAYLIST, "PLgoneabcdefghijk")


class TestChannel:
    @pytest.mark.parametrize("path", [f"channel/{CHANNEL_ID}", "@somebody", "c/somebody", "user/somebody"])
    def test_gives_its_uploads(self, ytdlp: YtDlpProvider, path: str) -> None:
        listing = ask(ytdlp, ListKind.CHANNEL, path)
        assert ids(listing) == channel_ids(path)[:20]
        assert (listing.title, listing.channel, listing.channel_id) == ("Test Channel", "Test Channel", CHANNEL_ID)

    def test_pages_reach_over_youtubes_own(self, ytdlp: YtDlpProvider) -> None:
        page = ask(ytdlp, ListKind.CHANNEL, "@somebody", page=2, page_size=40)
        assert ids(page) == channel_ids("@somebody")[40:]
        assert not page.has_more

    def test_one_that_does_not_exist_is_not_found(self, ytdlp: YtDlpProvider) -> None:
        with pytest.raises(NotFound):
            ask(ytdlp, ListKind.CHANNEL, "@gone")


class TestOddAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            {"list": {}},
            {"list": {"entries": None}},
            {"list": {"entries": [None, 5, {}, {"id": 7}, {"id": "short"}, {"id": "a/b/c/d/e/f"}]}},
        ],
    )
    def test_what_is_no_video_is_left_out(self, answer: dict[str, object]) -> None:
        question = ListQuestion(kind=ListKind.SEARCH, subject="x")
        assert make_listing(answer, question).videos == ()

    def test_wrong_types_do_no_harm(self) -> None:
        entry = {"id": "dQw4w9WgXcQ", "title": 5, "duration": "x", "view_count": -1, "channel": None}
        listing = make_listing({"list": {"entries": [entry]}}, ListQuestion(kind=ListKind.SEARCH, subject="x"))
        assert (listing.videos[0].title, listing.videos[0].duration_s, listing.videos[0].view_count) == ("", None, None)

    def test_a_failure_is_told_as_what_it_is(self) -> None:
        assert isinstance(list_failure({"text": "ERROR: Sign in to confirm you're not a bot"}), BotCheck)
        assert isinstance(list_failure({"text": "YouTube said: The playlist does not exist."}), NotFound)
        assert isinstance(list_failure(None), UpstreamError)
