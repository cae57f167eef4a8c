import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import InvalidUrl
from apps.downloads.list_links import parse_channel, parse_playlist_id
from apps.downloads.providers.listing import ListKind, ListQuestion

PLAYLIST = "PL1234567890-_abcDEF"
CHANNEL = "UC" + "x" * 22


class TestParsePlaylistId:
    @pytest.mark.parametrize(
        "text",
        [
            PLAYLIST,
            f"  {PLAYLIST}\n",
            f"https://www.youtube.com/playlist?list={PLAYLIST}",
            f"http://m.youtube.com/playlist?app=x&list={PLAYLIST}#top",
            f"music.youtube.com/playlist?list={PLAYLIST}&si=1",
            f"https://www.youtube.com/watch?v=dQw4w9WgXcQ&list={PLAYLIST}&index=2",
            f"https://youtu.be/dQw4w9WgXcQ?list={PLAYLIST}",
            f"https://www.youtube.com/embed/videoseries?list={PLAYLIST}",
            f"https://www.youtube.com/playlist?list={PLAYLIST}&list=RDx",
        ],
    )
    def test_takes_what_people_paste(self, text):
        assert parse_playlist_id(text) == PLAYLIST

    @pytest.mark.parametrize("text", ["OLAK5uy_abcdefghijklmnop", "UUabcdefghijklmnopqrstuv", "FLabcdefghijklmnopqrst"])
    def test_takes_albums_uploads_and_favourites(self, text):
        assert parse_playlist_id(text) == text

    @pytest.mark.parametrize(
        "text",
        [
            "", "PL", "words", "LL", "WL", "RDdQw4w9WgXcQ", "dQw4w9WgXcQ", PLAYLIST + "/..", f"{PLAYLIST}\x00",
            f"https://evil.example/playlist?list={PLAYLIST}", f"https://www.youtube.com@evil.example/?list={PLAYLIST}",
            f"https://www.youtube.com:1/playlist?list={PLAYLIST}", f"https://www.youtube.com/redirect?list={PLAYLIST}",
            "https://www.youtube.com/playlist", "https://www.youtube.com/playlist?list=RDEMxyz12345678",
            f"ftp://www.youtube.com/playlist?list={PLAYLIST}", "PL" + "x" * 3000,
        ],
    )  # fmt: skip
    def test_refuses_everything_else(self, text):
        with pytest.raises(InvalidUrl):
            parse_playlist_id(text)


class TestParseChannel:
    @pytest.mark.parametrize(
        ("text", "path"),
        [
            (CHANNEL, f"channel/{CHANNEL}"),
            ("@Some.body-1", "@Some.body-1"),
            ("@größe", "@größe"),
            (f"https://www.youtube.com/channel/{CHANNEL}", f"channel/{CHANNEL}"),
            (f"youtube.com/channel/{CHANNEL}/videos?view=0", f"channel/{CHANNEL}"),
            ("https://m.youtube.com/@somebody/shorts/", "@somebody"),
            ("https://www.youtube.com/@gr%C3%B6%C3%9Fe", "@größe"),
            ("https://www.youtube.com/c/Some-Name", "c/Some-Name"),
            ("https://www.youtube.com/user/name", "user/name"),
        ],
    )
    def test_takes_what_people_paste(self, text, path):
        assert parse_channel(text) == path

    @pytest.mark.parametrize(
        "text",
        [
            "", "somebody", "@a", "@a/b", "UCshort", "https://www.youtube.com/", "https://youtu.be/@somebody",
            "https://evil.example/@somebody", "https://www.youtube.com/@somebody/../x", "https://www.youtube.com/@a%2Fb",
            "https://www.youtube.com/@some%00body", "https://www.youtube.com/watch?v=dQw4w9WgXcQ", "@" + "x" * 31,
            "https://user@www.youtube.com/@somebody", "https://www.youtube.com/@somebody%3Fx", "@../../etc",
        ],
    )  # fmt: skip
    def test_refuses_everything_else(self, text):
        with pytest.raises(InvalidUrl):
            parse_channel(text)


@given(st.text(max_size=80) | st.from_regex(r"https://www\.youtube\.com/[@a-zA-Z/%0-9.]{0,40}", fullmatch=True))
def test_whatever_comes_out_makes_an_address_at_youtube(text):
    for parse, kind in ((parse_playlist_id, ListKind.PLAYLIST), (parse_channel, ListKind.CHANNEL)):
        try:
            subject = parse(text)
        except InvalidUrl:
            continue
        address = ListQuestion(kind=kind, subject=subject).address
        assert address.startswith(("https://www.youtube.com/playlist?list=", "https://www.youtube.com/"))
        assert address.isascii()
        assert not set(address) & set(" #\n\\")
        assert ".." not in address.split("/")
